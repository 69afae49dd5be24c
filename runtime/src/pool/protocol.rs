//! Client and daemon: a packet is a version and a postcard value, whole or refused. The daemon never waits for the
//! rest of a message.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::claim::Claim;

/// Of every packet, in its first two bytes, little endian.
pub const VERSION: u16 = 1;
/// Bytes a packet. A claim that needs more (its environment, say) is launched cold.
pub const PACKET: usize = 128 << 10;
/// Descriptors a packet: the most that a claim brings, and some air.
const FDS: usize = 160;

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Descriptors: those of the claim, in its order.
    Launch(Box<Launch>),
    /// How a launch that has ended, did: where the client was not told by the forker.
    End {
        id: String,
    },
    CreatePool {
        name: String,
        bundle: String,
        min: u32,
        max: u32,
    },
    ResizePool {
        name: String,
        min: u32,
        max: u32,
    },
    DrainPool {
        name: String,
    },
    DeletePool {
        name: String,
    },
    Pools,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Launch {
    pub target: Target,
    /// The name that the container gets; None: the sandbox's own.
    pub id: Option<String>,
    pub limits: Limits,
    pub claim: Claim,
    /// No cold launch: wait, or be refused.
    pub only: bool,
    /// The client does not wait: its end ends nothing, and the daemon keeps the deadline (milliseconds) and the end.
    pub detach: bool,
    pub timeout: Option<u64>,
    /// What /proc/self/cgroup says of a launching process whose program is to be accounted where it is itself.
    pub home: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Target {
    Pool(String),
    /// Absolute path of a bundle, for which a pool may have been declared or learned.
    Bundle(String),
}

/// What is written into the sandbox's cgroup before the claim; None leaves what the bundle has.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<i64>,
    /// Thousandths of a CPU.
    pub cpu: Option<u64>,
    pub pids: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Descriptors: the program's pidfd, and the socket that will bring its [`Status`].
    Granted(Granted),
    /// The client launches by itself.
    Cold {
        reason: String,
        bundle: Option<String>,
    },
    /// Also of anything that was wrong with the request.
    Refused {
        reason: String,
    },
    Done,
    Pools(Vec<PoolState>),
    /// None: nobody knows.
    End(Option<Status>),
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Granted {
    pub id: String,
    pub path: Path,
    pub pid: i32,
    /// CLOCK_MONOTONIC, nanoseconds: when the request was read, and when the claim had been passed on.
    pub received: u64,
    pub claimed: u64,
}

/// How a launch came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    Bundle,
    Skeleton,
    Cold,
}

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// As of wait(2).
    pub wait: i32,
    /// Processes of its cgroup that the OOM killer took.
    pub ooms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PoolState {
    pub name: String,
    pub bundle: String,
    pub min: u32,
    pub max: u32,
    pub parked: u32,
    pub making: u32,
    pub leased: u32,
    pub hits: u64,
    pub misses: u64,
    /// Why the last sandbox could not be made.
    pub trouble: Option<String>,
    pub learned: bool,
}

/// One packet, at once: a full socket is an error (EAGAIN), on a socket that does not block.
pub fn send<T: Serialize>(socket: BorrowedFd<'_>, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let packet = postcard::to_extend(message, VERSION.to_le_bytes().to_vec()).map_err(io::Error::other)?;
    if packet.len() > PACKET || fds.len() > FDS {
        return Err(Errno::MSGSIZE.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(&packet)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            result => return Ok(result.map(drop)?),
        }
    }
}

/// One packet, into a buffer that is kept from one to the next. None at the end of the stream; `InvalidData` for
/// what is no message of this version.
pub fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    packet: &mut Vec<u8>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    packet.resize(PACKET, 0);
    let received = loop {
        let mut parts = [IoSliceMut::new(packet)];
        match rustix::net::recvmsg(socket.as_fd(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(None),
            result => break result?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let (version, body) = packet[..received.bytes]
        .split_first_chunk::<2>()
        .ok_or_else(|| invalid("a packet without a version"))?;
    if u16::from_le_bytes(*version) != VERSION {
        return Err(invalid("another version of the protocol"));
    }
    let message = postcard::from_bytes(body).map_err(|_| invalid("no message of this version"))?;
    Ok(Some((message, fds)))
}
