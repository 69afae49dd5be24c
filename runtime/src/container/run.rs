//! `run`: create, start, wait, delete; and how a command waits for the process that it stands for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::console::Relay;
use super::create::{self, Created, Options};
use super::{Container, delete, notify, start};
use crate::observe::Timeline;
use crate::store::Root;
use crate::store::record::End;
use crate::{Error, Result};

/// The exit status of the command: the container's, or 0 when detached.
pub fn run(root: &Root, options: &Options, keep: bool) -> Result<u8> {
    // Before the first process: a signal that arrives meanwhile waits for it.
    let signals = if options.detach { None } else { Some(Signals::block()?) };
    let created = create::create(root, options)?;
    let pid = created.spawned.child.pid;
    let number = pid.as_raw_nonzero().get();
    let state = create::hook_state(&created.plan.init, "running", number);
    start::run_poststart(&created.container, &created.plan.host.hooks.poststart, &state)
        .inspect_err(|_| create::take_back(Some(&created.spawned), &created.container))?;
    let Created { mut container, spawned, terminal, relay, mut timeline, .. } = created;
    let pidfd = &spawned.child.pidfd;
    let Some(signals) = signals else {
        relay.map_or(Ok(()), |relay| relay.wait_until_ready(number, pidfd))?;
        return Ok(0);
    };
    let relay = relay.map(|relay| pass_readiness_on(relay, number, pidfd)).transpose()?;
    // Other commands may change it from here on.
    container.dir.unlock()?;
    timeline.mark("program executed");
    signals.wait(pidfd.as_fd(), pidfd, terminal, None)?;
    let status = reap(pid)?;
    timeline.mark("program ended");
    // What the program said last is passed on before its caller is told that it ended.
    let _ = relay.map(JoinHandle::join);
    if keep {
        // The status is told anyway, also if the container was deleted meanwhile.
        let _ = record_end(&mut container, status);
    } else {
        clear(container)?;
    }
    timeline.mark("cleaned up");
    tell(timeline);
    Ok(code(status))
}

/// Deletes a container that has ended: an `update` may have changed its record meanwhile, a `delete --force` may have
/// been faster.
pub(super) fn clear(mut container: Container) -> Result<()> {
    match container.lock() {
        Err(Error::NoContainer { .. }) => Ok(()),
        locked => locked.and_then(|()| delete::destroy(&container)),
    }
}

/// Nobody else is told how a child of ours ended.
fn record_end(container: &mut Container, status: i32) -> Result<()> {
    container.lock()?;
    let Some(record) = &mut container.record else { return Ok(()) };
    record.end = Some(End::new(status, record.cgroups.oom_count().unwrap_or(0)));
    container.dir.write(record)
}

/// The command waits for the program's end; its readiness is a second thing to wait for.
fn pass_readiness_on(relay: notify::Relay, pid: i32, ended: &OwnedFd) -> Result<JoinHandle<Result<()>>> {
    let ended = ended.try_clone().map_err(Error::sys("dup"))?;
    Ok(std::thread::spawn(move || relay.wait_until_ready(pid, &ended)))
}

fn tell(mut timeline: Timeline) {
    let marks = timeline.take();
    let Some((_, first)) = marks.first() else { return };
    let mut last = *first;
    for (name, time) in &marks {
        let (total, step) = (time.saturating_sub(*first) / 1000, time.saturating_sub(last) / 1000);
        crate::observe::log::timeline(&format!("{total:>8} us {step:>+7}  {name}"));
        last = *time;
    }
}

/// All signals of this process, as a descriptor.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Signals {
    pub fn block() -> Result<Self> {
        let all = SigSet::all();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), None).map_err(Error::sys("sigprocmask"))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { fd: SignalFd::with_flags(&all, flags).map_err(Error::sys("signalfd"))? })
    }

    /// As it was before, for another way to deal with them.
    pub fn unblock(self) -> Result<()> {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(Error::sys("sigprocmask"))
    }

    /// The number of one that has arrived.
    pub fn take(&self) -> Option<i32> {
        let info = self.fd.read_signal().ok().flatten()?;
        i32::try_from(info.ssi_signo).ok()
    }

    /// Passes signals on to the process until `ended` is readable. At the deadline the process is killed; whether
    /// it was is the value.
    pub fn wait(
        &self,
        ended: BorrowedFd<'_>,
        pidfd: &OwnedFd,
        terminal: Option<OwnedFd>,
        deadline: Option<Instant>,
    ) -> Result<bool> {
        let mut relay = terminal.map(Relay::new).transpose()?;
        let mut deadline = deadline;
        let mut killed = false;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let [signalled, over] = match &mut relay {
                Some(relay) => relay.until([self.fd.as_fd(), ended], timeout.as_ref())?,
                None => self.until_ended(ended, timeout.as_ref())?,
            };
            if over {
                if let Some(relay) = &mut relay {
                    relay.drain();
                }
                return Ok(killed);
            }
            if signalled {
                self.forward(pidfd, relay.as_ref())?;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                // It may have ended just now.
                let _ = crate::sys::kill::pidfd_send(pidfd, libc::SIGKILL);
                (deadline, killed) = (None, true);
            }
        }
    }

    fn until_ended(&self, ended: BorrowedFd<'_>, timeout: Option<&Timespec>) -> Result<[bool; 2]> {
        let mut waiting =
            [PollFd::new(&self.fd, PollFlags::IN), PollFd::from_borrowed_fd(ended, PollFlags::IN)];
        match poll(&mut waiting, timeout) {
            Err(rustix::io::Errno::INTR) => Ok([false, false]),
            result => {
                result.map_err(Error::sys("poll"))?;
                Ok([!waiting[0].revents().is_empty(), !waiting[1].revents().is_empty()])
            }
        }
    }

    fn forward(&self, pidfd: &OwnedFd, relay: Option<&Relay>) -> Result<()> {
        while let Some(info) = self.fd.read_signal().map_err(Error::sys("read signalfd"))? {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            if number == libc::SIGWINCH
                && let Some(relay) = relay
            {
                relay.resize();
            } else if !matches!(number, libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG) {
                // It may have ended just now.
                let _ = crate::sys::kill::pidfd_send(pidfd, number);
            }
        }
        Ok(())
    }
}

/// The wait status of a child that has ended, or will.
pub fn reap(pid: Pid) -> Result<i32> {
    loop {
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            result => {
                let status = result.map_err(Error::sys("waitid"))?.ok_or(Error::InitGone)?;
                let exited = status.exit_status().map(|code| (code & 0xff) << 8);
                return exited.or_else(|| status.terminating_signal()).ok_or(Error::InitGone);
            }
        }
    }
}

/// What a command exits with for it: the process's own status, 128 and the number for a signal.
pub fn code(status: i32) -> u8 {
    let signalled = libc::WIFSIGNALED(status);
    let code = if signalled { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    u8::try_from(code & 0xff).unwrap_or(255)
}
