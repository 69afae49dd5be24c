//! The container's first process where the program is not to be it: it passes signals on, reaps what is orphaned,
//! and ends as the program ends. It is init itself, which forks the program and stays behind.
//!
//! It holds no descriptor, not even the standard streams, and its root is the container's. It has the program's
//! rights and seccomp filter, for whoever may trace processes could act through it; landlock it does without, since
//! no process can trace one outside its own domain. It is not dumpable, for the plan is in its memory. The first
//! process of a PID namespace cannot die of a signal: a program's end by one is told as shells do, by 128 and its
//! number.

use std::convert::Infallible;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getppid, set_child_subreaper, set_parent_process_death_signal, wait,
};

use super::{Failure, finish, step, tell};
use crate::bundle::plan::Init;
use crate::sys::clone::{Request, exit_now, spawn};
use crate::sys::{self, kill::kill};
use crate::{Error, Result};

/// Has a child do `program`, which ends in the program or in a failure, once this process is what it will stay.
pub(super) fn stay_behind<F>(plan: &Init, report: &mut OwnedFd, program: F) -> Result<Infallible, Failure>
where
    F: FnOnce(&mut OwnedFd) -> Result<Infallible, Failure>,
{
    let (turn, settled) = step("13 init", prepare())?;
    let (me, theirs) = (getpid(), &mut *report);
    let child = spawn(Request::default(), move || {
        let result = step("13 init", await_turn(me, turn)).and_then(|()| program(theirs));
        match result {
            Ok(never) => match never {},
            Err(failure) => tell(theirs, &failure),
        }
    });
    let child = step("13 init", child.map_err(Error::sys("clone3")))?.pid;
    let program = child.as_raw_nonzero().get();
    let end_with = |failure| {
        let _ = kill(program, libc::SIGKILL);
        failure
    };
    finish::restrict(&plan.process, &plan.common).map_err(end_with)?;
    step("13 init", keep_only(settled)).map_err(end_with)?;
    // From here on there is nothing left to tell a failure by.
    if finish::restrict_last(&plan.process, &plan.common).is_err() || give_turn().is_err() {
        let _ = kill(program, libc::SIGKILL);
        exit_now(1)
    }
    reap(child)
}

/// The pipe by which the child gets its turn.
fn prepare() -> Result<(OwnedFd, OwnedFd)> {
    // For orphans in a PID namespace with others.
    set_child_subreaper(Some(getpid())).map_err(Error::sys("PR_SET_CHILD_SUBREAPER"))?;
    rustix::thread::set_name(c"hearth-init").map_err(Error::sys("PR_SET_NAME"))?;
    // The caller may ignore the end of children, which would be reaped unseen.
    sys::process::reset_signals(1 << (libc::SIGCHLD - 1)).map_err(Error::sys("rt_sigaction"))?;
    sys::process::block_signals(u64::MAX).map_err(Error::sys("rt_sigprocmask"))?;
    pipe_with(PipeFlags::CLOEXEC).map_err(Error::sys("pipe"))
}

/// In the child.
fn await_turn(parent: Pid, turn: OwnedFd) -> Result<()> {
    die_with(parent)?;
    if rustix::io::read(turn, &mut [0]) != Ok(1) {
        return Err(Error::InitGone);
    }
    sys::process::block_signals(0).map_err(Error::sys("rt_sigprocmask"))?;
    // A terminal is to be the program's own.
    rustix::process::setsid().map(drop).map_err(Error::sys("setsid"))
}

/// In a PID namespace with others too, nothing outlives the first process. A change of rights undoes it.
pub(super) fn die_with(parent: Pid) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(Error::sys("PR_SET_PDEATHSIG"))?;
    if getppid() == Some(parent) { Ok(()) } else { Err(Error::InitGone) }
}

/// Closes everything else, and makes this descriptor the first.
fn keep_only(fd: OwnedFd) -> Result<()> {
    rustix::stdio::dup2_stdin(&fd).map_err(Error::sys("dup2"))?;
    // Its number is among those that are closed.
    std::mem::forget(fd);
    sys::fd::close_from(1).map_err(Error::sys("close_range"))
}

fn give_turn() -> Result<()> {
    let settled = sys::fd::inherited(0).ok_or(Error::InitGone)?;
    rustix::io::write(settled, &[1]).map(drop).map_err(Error::sys("write"))
}

fn reap(program: Pid) -> ! {
    loop {
        let signal = sys::process::next_signal();
        // A filter that forbids to wait for signals leaves the waiting for children.
        let options = if signal.is_ok() { WaitOptions::NOHANG } else { WaitOptions::empty() };
        loop {
            match wait(options) {
                Ok(Some((pid, status))) if pid == program => {
                    let code =
                        status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
                    exit_now(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => exit_now(255),
            }
        }
        if let Ok(signal) = signal
            && signal != libc::SIGCHLD
        {
            // It may be another user's by now.
            let _ = kill(program.as_raw_nonzero().get(), signal);
        }
    }
}
