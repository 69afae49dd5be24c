//! A container's network namespace, made ahead: it costs as much as all the other namespaces together, so it is
//! made on a thread of its own while the runtime still prepares the rest.

use std::io;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};
use oci_spec::runtime::LinuxNamespaceType;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::bundle::plan::Host;
use crate::{Error, Result};

/// CLONE_NEWNET
pub const FLAG: u64 = 0x4000_0000;

#[derive(Debug)]
pub struct Ahead(JoinHandle<io::Result<OwnedFd>>);

impl Ahead {
    /// None where there is none to make, or where it is to be owned by another user namespace than ours.
    pub fn start(host: &Host) -> Option<Self> {
        let joins_user = host.joined.iter().any(|(kind, _)| *kind == LinuxNamespaceType::User);
        let wanted = host.new_namespaces & (FLAG | libc::CLONE_NEWUSER as u64) == FLAG && !joins_user;
        let thread = || std::thread::Builder::new().stack_size(64 << 10).spawn(make).ok();
        // Without a thread, clone3 makes it in its turn.
        wanted.then(thread).flatten().map(Self)
    }

    /// The namespace, with its loopback interface up.
    pub fn wait(self) -> Result<OwnedFd> {
        let made = self.0.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        made.map_err(Error::sys("make the network namespace"))
    }
}

/// Moves this thread only, which ends right after.
fn make() -> io::Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    crate::sys::net::loopback_up()?;
    Ok(openat(CWD, c"/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
