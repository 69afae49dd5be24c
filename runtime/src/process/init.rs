//! The container's side: this executable again, from a read-only clone, with one socket. It receives a plan and
//! turns itself, step by step, into the user's program.
//!
//! The end of the socket's stream before `Go` means that the runtime died: init ends, and with it all that was
//! set up in its namespaces.

mod claim;
mod create;
mod finish;
mod join;
mod reap;

use std::os::fd::{AsFd, OwnedFd, RawFd};

use super::channel::{self, ToInit, ToRuntime};
use crate::sys;
use crate::{Error, Result};

/// What failed, by the name of its step.
pub(super) type Failure = (&'static str, Error);

/// `hearth init FD`: never called by a user.
pub fn main(socket: RawFd) -> u8 {
    // Given by hand, it is nothing that answers: the first receive fails.
    let Some(socket) = sys::fd::inherited(socket) else { return 1 };
    // From the outside this process is the runtime until it is the user's program: nobody reads its memory.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let mut report = socket;
    match run(&mut report) {
        Ok(never) => match never {},
        Err(failure) => tell(&report, &failure),
    }
}

/// The last words of a process that did not become the program, and its exit status.
fn tell(report: &OwnedFd, (step, error): &Failure) -> u8 {
    let message = ToRuntime::Failed { step: (*step).to_owned(), message: error.chain() };
    let _ = channel::send(report.as_fd(), &message, &[]);
    1
}

/// `report` is where a failure goes: the socket of the start command replaces it, once there is one.
fn run(report: &mut OwnedFd) -> Result<std::convert::Infallible, Failure> {
    sys::process::block_signals(0).map_err(at("signals", "rt_sigprocmask"))?;
    sys::fd::keep_cloexec(report).map_err(at("start", "fcntl"))?;
    let received = channel::receive::<ToInit>(report.as_fd()).map_err(at("plan", "receive the plan"))?;
    match received {
        Some((ToInit::Create(create), fds)) => create::run(*create, fds, report),
        Some((ToInit::Join(join), fds)) => join::run(*join, fds, report),
        _ => Err(("plan", Error::InitGone)),
    }
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
