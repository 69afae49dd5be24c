//! Messages between the runtime and a container's init: a length, a postcard value, and descriptors by SCM_RIGHTS.
//!
//! Both ends are the same executable, so the encoding needs no version of its own. The start socket, which a later
//! `hearth` may talk to, carries a single [`ToInit::Go`], whose encoding is fixed.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bundle::plan::{Common, Init};
use crate::bundle::process::Process;
use crate::isolate::cgroup_view::View;
use crate::pool::claim::Claim;

#[derive(Debug, Serialize, Deserialize)]
pub enum ToInit {
    /// Carry on: the runtime's part is done.
    Go {
        /// The container's as the runtime sees it.
        pid: i32,
        /// Signals that the caller ignores, a bit each: parents written in Go or run under nohup leave some, and
        /// exec keeps them. To ask the kernel for all 64 in init would cost as many calls.
        ignored: u64,
    },
    /// Make a container. Descriptors: those that `Create` counts.
    Create(Box<Create>),
    /// What a parked init becomes. Descriptors: the report socket, the standard streams unless there is a terminal,
    /// mounts, secrets.
    Claim { pid: i32, claim: Box<Claim> },
    /// Join one. Descriptors: the container's pidfd.
    Join(Box<Join>),
    /// Enter this network namespace, made for the container.
    Network,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Create {
    pub plan: Init,
    pub cgroups: View,
    /// Whether the first descriptor is the start socket, on which init waits for `hearth start`.
    pub waits_for_start: bool,
    /// Whether init is parked at the end, and waits for a claim.
    pub parks: bool,
    /// Whether the next descriptors are the root file system and our own executable, detached mounts.
    pub has_root: bool,
    /// Whether [`ToInit::Network`] follows.
    pub has_network: bool,
    /// The root's path outside: to change root to, without a mount namespace; or to attach it at, for hooks.
    pub rootfs: Option<String>,
    pub timeline: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Join {
    pub process: Process,
    pub common: Common,
    /// CLONE_NEW* flags to enter by the pidfd.
    pub namespaces: u64,
    /// The container's id: its session keyring is joined by name.
    pub id: String,
    /// As in [`ToInit::Go`].
    pub ignored_signals: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum ToRuntime {
    /// What the runtime may not open itself ([`crate::isolate::sources`]), as the attached descriptors.
    Opened,
    /// Namespaces and mounts are there, the root is not changed yet: time for prestart and createRuntime.
    AtHooks,
    /// The pty's master, as the attached descriptor.
    Console,
    /// The listener of the seccomp filter, as the attached descriptor.
    Listener,
    /// The joining process was made; the attached descriptor is its pidfd.
    Joined {
        pid: i32,
    },
    /// Everything is set up. Nanoseconds (CLOCK_MONOTONIC) at the end of each step, where asked for.
    Ready {
        steps: Vec<(String, u64)>,
    },
    Failed {
        step: String,
        message: String,
    },
}

/// The kernel's limit of descriptors a message (SCM_MAX_FD) is 253.
const FDS: usize = 250;
/// Bytes a packet: one is enough for most plans; it lies on the stack.
const PACKET: usize = 8 << 10;
/// Far above any plan; a length beyond it is a broken peer.
const LIMIT: usize = 64 << 20;
/// Length of the value and count of its descriptors, both u32 in little endian.
const HEADER: usize = 8;

/// Packets keep their borders, so that a small message is one call at either end.
pub const KIND: SocketType = SocketType::SEQPACKET;

pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, KIND, SocketFlags::CLOEXEC, None)?)
}

/// Header and value in as many packets as they need, the descriptors spread over them; what is left of these
/// travels on packets of one byte.
pub fn send<T: Serialize>(socket: BorrowedFd<'_>, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut frame = vec![0; HEADER];
    frame = postcard::to_extend(message, frame).map_err(io::Error::other)?;
    let length = u32::try_from(frame.len() - HEADER).map_err(io::Error::other)?;
    let count = u32::try_from(fds.len()).map_err(io::Error::other)?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..HEADER].copy_from_slice(&count.to_le_bytes());
    let mut chunks = fds.chunks(FDS);
    for packet in frame.chunks(PACKET) {
        send_packet(socket, packet, chunks.next().unwrap_or_default())?;
    }
    chunks.try_for_each(|chunk| send_packet(socket, &[0], chunk))
}

fn send_packet(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result.map(drop)?),
        }
    }
}

/// None at the end of the stream: the peer is gone.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut fds = Vec::new();
    let mut bytes = Vec::new();
    receive_packet(socket, &mut bytes, &mut fds)?;
    let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else {
        return if bytes.is_empty() { Ok(None) } else { Err(io::ErrorKind::InvalidData.into()) };
    };
    let [a, b, c, d, e, f, g, h] = *header;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).map_err(io::Error::other)?;
    let count = usize::try_from(u32::from_le_bytes([e, f, g, h])).map_err(io::Error::other)?;
    if length > LIMIT {
        return Err(io::ErrorKind::InvalidData.into());
    }
    while bytes.len() < HEADER + length || fds.len() < count {
        if receive_packet(socket, &mut bytes, &mut fds)? == 0 {
            return Ok(None);
        }
    }
    let message = postcard::from_bytes(&bytes[HEADER..HEADER + length]).map_err(io::Error::other)?;
    Ok(Some((message, fds)))
}

/// Appends one packet and the descriptors that came with it; gives its length, 0 at the end.
pub(crate) fn receive_packet(
    socket: BorrowedFd<'_>,
    bytes: &mut Vec<u8>,
    fds: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut packet = [0; PACKET];
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut packet)];
        match rustix::net::recvmsg(socket.as_fd(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            // The peer closed before it read all of ours; told once, ahead of what it had to say.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
            result => break result?.bytes,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    bytes.extend_from_slice(&packet[..received]);
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_brings_more_descriptors_than_one_sendmsg_can() {
        let (a, b) = pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let fds: Vec<_> = (0..300).map(|_| null.as_fd()).collect();
        send(a.as_fd(), &ToInit::Go { pid: 7, ignored: 1 }, &fds).unwrap();
        let (message, got) = receive::<ToInit>(b.as_fd()).unwrap().unwrap();
        assert!(matches!(message, ToInit::Go { pid: 7, .. }));
        assert_eq!(got.len(), 300);
    }

    #[test]
    fn the_last_words_of_a_peer_that_did_not_listen_are_heard() {
        let (a, b) = pair().unwrap();
        let go = ToInit::Go { pid: 1, ignored: 0 };
        send(a.as_fd(), &go, &[]).unwrap();
        send(b.as_fd(), &go, &[]).unwrap();
        drop(b);
        assert!(receive::<ToInit>(a.as_fd()).unwrap().is_some());
        assert!(receive::<ToInit>(a.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_closed_peer_is_none_and_rubbish_is_an_error() {
        let (a, b) = pair().unwrap();
        rustix::io::write(&a, &[0xff; 12]).unwrap();
        assert!(receive::<ToInit>(b.as_fd()).is_err());
        let (a, b) = pair().unwrap();
        drop(a);
        assert!(receive::<ToInit>(b.as_fd()).unwrap().is_none());
    }
}
