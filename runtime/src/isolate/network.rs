//! A container's network namespace, made ahead: it costs as much as all the other namespaces together, so it is
//! made by a process beside the runtime, which still prepares the rest.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use oci_spec::runtime::LinuxNamespaceType;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::bundle::plan::Host;
use crate::sys::clone::Beside;
use crate::{Error, Result};

/// CLONE_NEWNET
pub const FLAG: u64 = 0x4000_0000;

#[derive(Debug)]
pub struct Ahead(Beside);

impl Ahead {
    /// None where there is none to make, or where it is to be owned by another user namespace than ours.
    pub fn start(host: &Host) -> Option<Self> {
        let joins_user = host.joined.iter().any(|(kind, _)| *kind == LinuxNamespaceType::User);
        let wanted = host.new_namespaces & (FLAG | libc::CLONE_NEWUSER as u64) == FLAG && !joins_user;
        // Where that process cannot be made, clone3 makes the namespace in its turn.
        wanted.then(|| Beside::start(make).ok()).flatten().map(Self)
    }

    /// The namespace, with its loopback interface up.
    pub fn wait(self) -> Result<OwnedFd> {
        self.0.wait().map_err(Error::sys("make the network namespace"))
    }
}

fn make() -> io::Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    crate::sys::net::loopback_up()?;
    Ok(openat(CWD, c"/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Brings loopback up in a namespace that somebody else has made: this thread goes there for it, and comes back.
pub fn loopback_up_in(namespace: BorrowedFd<'_>) -> io::Result<()> {
    let own = std::fs::File::open("/proc/thread-self/ns/net")?;
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let result = crate::sys::net::loopback_up();
    setns(own, CloneFlags::CLONE_NEWNET)?;
    result
}
