//! The container's side: this executable again, from a read-only clone, with one socket. It receives a plan, or as a
//! fork of the runtime has it, and turns itself, step by step, into the user's program.
//!
//! The end of the socket's stream before `Go` means that the runtime died: init ends, and with it all that was
//! set up in its namespaces.

mod claim;
mod create;
mod finish;
mod join;
mod reap;

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use super::channel::{self, Create, ToInit, ToRuntime};
use crate::sys;
use crate::{Error, Result};

/// What failed, by the name of its step.
pub(super) type Failure = (&'static str, Error);

/// `hearth init FD`: never called by a user.
pub fn main(socket: RawFd) -> u8 {
    // Given by hand, it is nothing that answers: the first receive fails.
    let Some(socket) = sys::fd::inherited(socket) else { return 1 };
    reporting(socket, |report| {
        sys::fd::keep_cloexec(report).map_err(at("start", "fcntl"))?;
        let received = channel::receive::<ToInit>(report.as_fd()).map_err(at("plan", "receive the plan"))?;
        match received {
            Some((ToInit::Create(create), fds)) => create::run(&create, fds, report),
            Some((ToInit::Join(join), fds)) => join::run(*join, fds, report),
            _ => Err(("plan", Error::InitGone)),
        }
    })
}

/// As a fork of the runtime, of which it keeps these descriptors, the standard streams, and those that are preserved
/// for the program. What its caller's environment holds is none of the container's business.
pub fn forked(create: &Create, socket: BorrowedFd<'_>, fds: &[BorrowedFd<'_>], preserve_fds: u32) -> u8 {
    sys::process::forget_environment();
    let (socket, fds) = sys::fd::keep_only(socket, fds, 3 + preserve_fds);
    reporting(socket, |report| create::run(create, fds, report))
}

/// `report` is where a failure goes: the socket of the start command replaces it, once there is one.
fn reporting(socket: OwnedFd, run: impl FnOnce(&mut OwnedFd) -> Result<Infallible, Failure>) -> u8 {
    // From the outside this process is the runtime until it is the user's program: nobody reads its memory.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let mut report = socket;
    let ready = sys::process::block_signals(0).map_err(at("signals", "rt_sigprocmask"));
    let Err(failure) = ready.and_then(|()| run(&mut report));
    tell(&report, &failure)
}

/// The last words of a process that did not become the program, and its exit status.
fn tell(report: &OwnedFd, (step, error): &Failure) -> u8 {
    let message = ToRuntime::Failed { step: (*step).to_owned(), message: error.chain() };
    let _ = channel::send(report.as_fd(), &message, &[]);
    1
}

fn at(step: &'static str, call: &'static str) -> impl FnOnce(std::io::Error) -> Failure {
    move |source| (step, Error::Sys { call, source })
}

/// Marks an error with its step.
fn step<T>(name: &'static str, result: Result<T>) -> Result<T, Failure> {
    result.map_err(|error| (name, error))
}

/// Waits for the runtime's word.
fn wait_for_go(socket: &OwnedFd) -> Result<i32, Failure> {
    match channel::receive::<ToInit>(socket.as_fd()).map_err(at("go", "receive"))? {
        Some((ToInit::Go { pid, ignored }, _)) => {
            sys::process::reset_signals(ignored).map_err(at("signals", "rt_sigaction"))?;
            Ok(pid)
        }
        _ => Err(("go", Error::InitGone)),
    }
}
