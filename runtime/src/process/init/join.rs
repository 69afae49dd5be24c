//! Joins a running container: `hearth exec`.
//!
//! Whoever becomes visible in a running PID namespace may be looked at by what runs there. So the namespaces are
//! entered, and all that is the host's is let go, before the process that is visible is made (FACTS.md, "seen
//! today" row).

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use rustix::fs::{CWD, Mode, OFlags};

use super::super::channel::{self, Join, ToRuntime};
use super::{Failure, finish, step, tell};
use crate::isolate::tree::Tree;
use crate::isolate::{labels, rights, terminal};
use crate::sys::clone::{Request, spawn};
use crate::sys::{self};
use crate::{Error, Result};

pub(super) fn run(join: Join, fds: Vec<OwnedFd>, report: &mut OwnedFd) -> Result<Infallible, Failure> {
    if let (Some(cpus), _) = &join.process.affinity {
        step("join: affinity", rights::set_affinity(cpus))?;
    }
    step("join: limits", rights::set_limits(&join.process.rlimits))?;
    step("join: namespaces", enter(&join, fds))?;
    // The child keeps the socket and the standard streams; whatever else was open is gone by now.
    let request = Request { flags: libc::CLONE_PARENT as u64, cgroup: None, vfork: false };
    let inner = &join;
    let inner_report = &*report;
    let child = spawn(request, move || visible(inner, inner_report));
    let child = step("join: clone", child.map_err(Error::sys("clone3")))?;
    let message = ToRuntime::Joined { pid: child.pid.as_raw_nonzero().get() };
    let sent = channel::send(report.as_fd(), &message, &[child.pidfd.as_fd()]);
    step("join: clone", sent.map_err(Error::sys("report to the runtime")))?;
    sys::clone::exit_now(0)
}

fn enter(join: &Join, fds: Vec<OwnedFd>) -> Result<()> {
    let [container] = fds.try_into().map_err(|_| Error::InitGone)?;
    let flags = i32::try_from(join.namespaces).map_err(|_| Error::InitGone)?;
    setns(&container, CloneFlags::from_bits_retain(flags))
        .map_err(Error::sys("enter the container's namespaces"))?;
    drop(container);
    if flags & libc::CLONE_NEWUSER != 0 {
        sys::process::set_ids(0, 0, None).map_err(Error::sys("become root of the user namespace"))?;
    }
    Ok(())
}

/// The process that is visible in the container.
fn visible(join: &Join, report: &OwnedFd) -> u8 {
    match become_program(join, report) {
        Ok(never) => match never {},
        Err(failure) => tell(report, &failure),
    }
}

fn become_program(join: &Join, report: &OwnedFd) -> Result<Infallible, Failure> {
    let reset = sys::process::reset_signals(join.ignored_signals);
    step("1 session", reset.map_err(Error::sys("rt_sigaction")))?;
    step("1 session", rustix::process::setsid().map(drop).map_err(Error::sys("setsid")))?;
    step("1 session", labels::label_keyring(&join.process))?;
    let keyring = format!("_ses.{}", join.id);
    step("1 session", sys::keyring::join_session(&keyring).map_err(Error::sys("keyctl")))?;
    step("1 session", rights::reset_affinity())?;
    let pty = step("7 terminal", console(join, report))?;
    let mut process = join.process.clone();
    process.rlimits.clear();
    let program = finish::prepare(&process, &join.common, pty.as_ref(), report)?;
    drop(pty);
    if let (_, Some(cpus)) = &process.affinity {
        step("13 affinity", rights::set_affinity(cpus))?;
    }
    finish::lock_down(&process, &join.common, &program, report)?;
    finish::execute(&process, &program)
}

fn console(join: &Join, report: &OwnedFd) -> Result<Option<terminal::Pty>> {
    let Some(window) = join.process.terminal else { return Ok(None) };
    let root =
        rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let pty = terminal::open(&Tree::new(root.map_err(Error::path("open", "/"))?), window)?;
    channel::send(report.as_fd(), &ToRuntime::Console, &[pty.master.as_fd()])
        .map_err(Error::sys("send the pty"))?;
    Ok(Some(pty))
}
