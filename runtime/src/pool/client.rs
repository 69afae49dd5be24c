//! The client's side of the daemon's socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use super::protocol::{self, Reply, Request};
use crate::store::Root;
use crate::{Error, Result};

/// In the directory of all containers.
pub const SOCKET: &str = "hearthd.sock";
/// The daemon's own directory there: no container has such a name. In it are parked sandboxes, and the lock of the
/// daemon that lives.
pub const OWN: &str = ".pool";
pub const PARKED: &str = "parked";
pub const LOCK: &str = "hearthd.lock";
/// Declared pools, a file each.
pub const POOLS: &str = "/var/lib/hearth/pools";

/// A pool as it was declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    pub bundle: PathBuf,
    pub min: u32,
    pub max: u32,
}

impl Declared {
    pub fn read(pools: &Path, name: &str) -> Option<Self> {
        crate::bundle::validate::id(name).ok()?;
        let text = std::fs::read(pools.join(format!("{name}.json"))).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

/// A connection: one question at a time.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

impl Client {
    /// An error here means that there is no daemon, or none for this caller.
    pub fn connect(root: &Root) -> Result<Self> {
        let path = root.path().join(SOCKET);
        let kind = SocketType::SEQPACKET;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
        let socket = socket.map_err(Error::sys("socket"))?;
        let address = SocketAddrUnix::new(&path).map_err(Error::path("address", &path))?;
        rustix::net::connect(&socket, &address).map_err(Error::path("connect to hearthd at", &path))?;
        Ok(Self { socket })
    }

    pub fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>)> {
        let mut packet = Vec::new();
        protocol::send(self.socket.as_fd(), request, fds).map_err(Error::sys("send to hearthd"))?;
        let reply = protocol::receive(self.socket.as_fd(), &mut packet);
        let gone = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        reply.and_then(|reply| reply.ok_or_else(gone)).map_err(Error::sys("receive from hearthd"))
    }
}
