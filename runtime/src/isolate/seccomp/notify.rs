//! Hands the listener of a filter with SCMP_ACT_NOTIFY to the agent that will answer its calls.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};

use crate::{Error, Result};

/// How long an agent may leave its socket's queue full.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends the container process state as JSON, its listener's descriptor (`seccompFd`) riding on the first bytes.
pub fn send(listener_path: &Path, listener: BorrowedFd<'_>, state_json: &[u8]) -> Result<()> {
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
