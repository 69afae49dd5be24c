//! Hands the listener of a filter with SCMP_ACT_NOTIFY to the agent that will answer its calls.
//!
//! Whoever loads such a filter may not make a single call any more before the agent has the listener: any call may
//! be one that waits for its answer. So a thread that the filter does not bind, made before it, takes the listener
//! from memory and hands it on, while the one that loaded it spins.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::time::Duration;

use oci_spec::runtime::LinuxSeccomp;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};
use serde::Serialize;

use super::Program;
use crate::isolate::hooks::State;
use crate::sys::fd::inherited;
use crate::{Error, Result};

/// No descriptor's number.
const NONE: RawFd = -1;
const WAITING: u8 = 0;
const DELIVERED: u8 = 1;
const FAILED: u8 = 2;

/// Loads a filter, and gives its listener, if it has one, to `deliver` on a thread that is free of the filter.
pub fn load(
    program: &Program,
    deliver: impl FnOnce(BorrowedFd<'_>) -> std::io::Result<()> + Send + 'static,
) -> Result<()> {
    if !program.notify {
        return program.load().map(drop);
    }
    let shared = Arc::new(Shared { listener: AtomicI32::new(NONE), outcome: AtomicU8::new(WAITING) });
    let theirs = Arc::clone(&shared);
    let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(move || theirs.hand_on(deliver));
    let thread = thread.map_err(Error::sys("make a thread for the seccomp listener"))?;
    let listener = program.load().inspect_err(|_| shared.outcome.store(FAILED, Ordering::Release))?;
    // Neither the giving nor the waiting makes a call: nobody sleeps at the other end.
    shared.listener.store(listener.ok_or(Error::InitGone)?.into_raw_fd(), Ordering::Release);
    while shared.outcome.load(Ordering::Acquire) == WAITING {
        std::hint::spin_loop();
    }
    let delivered = shared.outcome.load(Ordering::Acquire) == DELIVERED;
    // To let go of the thread may unmap its stack, which is a call; exec takes care of it.
    std::mem::forget((thread, shared));
    if delivered { Ok(()) } else { Err(Error::InitGone) }
}

/// Between the loader and the thread.
struct Shared {
    /// The number of a descriptor that is whoever's takes it.
    listener: AtomicI32,
    outcome: AtomicU8,
}

impl Shared {
    /// Until the listener is there, or the load has failed.
    fn hand_on(&self, deliver: impl FnOnce(BorrowedFd<'_>) -> std::io::Result<()>) {
        const PAUSE: Duration = Duration::from_micros(50);
        while self.outcome.load(Ordering::Acquire) == WAITING {
            // Closed here once it is delivered: the agent's is to be the only one.
            if let Some(listener) = inherited(self.listener.load(Ordering::Acquire)) {
                let delivered = deliver(listener.as_fd()).is_ok();
                drop(listener);
                let outcome = if delivered { DELIVERED } else { FAILED };
                return self.outcome.store(outcome, Ordering::Release);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// The "container process state" of the spec (config-linux.md, "The Container Process State").
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    /// Of the process that has the filter; `state` has the container's.
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: &'a State<'a>,
}

/// Where a profile wants its listener sent, and what it wants to go with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    pub path: PathBuf,
    pub metadata: String,
}

impl Agent {
    /// None where the profile has no listener.
    pub fn of(profile: &LinuxSeccomp) -> Option<Self> {
        let path = profile.listener_path().clone()?;
        Some(Self { path, metadata: profile.listener_metadata().clone().unwrap_or_default() })
    }

    /// Sends the listener of process `pid` of the container whose state this is.
    pub fn send(&self, listener: BorrowedFd<'_>, pid: i32, state: &State<'_>) -> Result<()> {
        let state = ProcessState {
            oci_version: crate::OCI_VERSION,
            fds: ["seccompFd"],
            pid,
            metadata: &self.metadata,
            state,
        };
        let json =
            serde_json::to_vec(&state).map_err(|source| Error::Json { what: "state".into(), source })?;
        send(&self.path, listener, &json)
    }
}

/// How long an agent may leave its socket's queue full.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends the container process state as JSON, its listener's descriptor (`seccompFd`) riding on the first bytes.
pub(super) fn send(listener_path: &Path, listener: BorrowedFd<'_>, state_json: &[u8]) -> Result<()> {
    const CONNECT: &str = "failed to connect with seccomp agent specified in the seccomp profile:";
    const SEND: &str = "cannot send seccomp fd to";
    let address = SocketAddrUnix::new(listener_path).map_err(Error::path(CONNECT, listener_path))?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(Error::sys("socket"))?;
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE)).map_err(Error::sys("setsockopt"))?;
    connect(&socket, &address).map_err(Error::path(CONNECT, listener_path))?;
    let descriptors = [listener];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let mut sent = sendmsg(&socket, &[IoSlice::new(state_json)], &mut ancillary, SendFlags::NOSIGNAL)
        .map_err(Error::path(SEND, listener_path))?;
    while sent < state_json.len() {
        sent += rustix::net::send(&socket, &state_json[sent..], SendFlags::NOSIGNAL)
            .map_err(Error::path(SEND, listener_path))?;
    }
    Ok(())
}
