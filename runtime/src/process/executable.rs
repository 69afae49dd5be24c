//! This executable, as nobody can write to it, for whatever enters a container (CVE-2019-5736).
//!
//! It is executed from a read-only detached clone of the mount of its directory. Of the directory: who holds the file,
//! as a container may by /proc/PID/exe, cannot take the mount's flag back, for mount_setattr(2) wants the mount's own
//! root, and from a file no path leads up to it. With a clone of the file alone a container with CAP_SYS_ADMIN could,
//! and did in a test (`attacks::a_container_with_all_rights_cannot_overwrite_the_runtime`). Nor can it clone that mount
//! again: that needs the mount namespace which it was cloned in, and so this is never the container's.
//!
//! An ordinary user may not clone mounts: a child in a user and mount namespace of its own does it, for 0.2 to 0.4 ms.
//! Where that fails too, a sealed copy in memory serves: 1.7 ms of copying.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::fs::{CWD, Mode, OFlags, fstat, openat, stat};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::sys::clone::{Request, spawn};
use crate::sys::fd::inherited;
use crate::sys::mount::{self as sys, Attr};
use crate::{Error, Result};

const OWN: &str = "/proc/self/exe";

#[derive(Debug)]
pub(super) struct Executable {
    pub(super) file: OwnedFd,
    /// Of its directory; none for a copy, and for a clone of the file alone, which [`crate::sys::entry::take_clone`] gives to those only
    /// who are never seen.
    mount: Option<OwnedFd>,
}

impl From<OwnedFd> for Executable {
    fn from(file: OwnedFd) -> Self {
        Self { file, mount: None }
    }
}

impl Executable {
    /// What holds the mount.
    pub(super) fn holder(&self) -> &OwnedFd {
        self.mount.as_ref().unwrap_or(&self.file)
    }

    pub(super) fn into_holder(self) -> OwnedFd {
        self.mount.unwrap_or(self.file)
    }

    pub(super) fn own() -> Result<Self> {
        Self::cloned().or_else(|_| sealed_copy()).map_err(Error::path("clone", OWN))
    }

    fn cloned() -> io::Result<Self> {
        let path = rustix::fs::readlink(OWN, Vec::new())?;
        let path = Path::new(OsStr::from_bytes(path.as_bytes()));
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mount = match read_only(directory) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => by_child(directory)?,
            mount => mount?,
        };
        let file = openat(&mount, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        // Another one may have its name by now.
        let (found, own) = (fstat(&file)?, stat(OWN)?);
        if (found.st_dev, found.st_ino) != (own.st_dev, own.st_ino) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self { file, mount: Some(mount) })
    }
}

fn read_only(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, directory, flags)?;
    let read_only = Attr { set: sys::RDONLY | sys::NOSUID, ..Attr::default() };
    sys::set_attr(mount.as_fd(), c"", false, read_only)?;
    Ok(mount)
}

fn by_child(directory: &Path) -> io::Result<OwnedFd> {
    let number = AtomicI32::new(-1);
    let flags = (libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_FILES) as u64;
    // Within our memory and our descriptors; we stand still until it has ended.
    let child = spawn(Request { flags, cgroup: None, vfork: true }, || {
        let Ok(mount) = read_only(directory) else { return 1 };
        number.store(mount.into_raw_fd(), Ordering::Relaxed);
        0
    })?;
    waitid(WaitId::Pid(child.pid), WaitIdOptions::EXITED)?;
    inherited(number.into_inner()).ok_or_else(|| io::ErrorKind::PermissionDenied.into())
}

fn sealed_copy() -> io::Result<Executable> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let copy = rustix::fs::memfd_create("hearth", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut copy = std::fs::File::from(copy);
    io::copy(&mut std::fs::File::open(OWN)?, &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(Executable::from(OwnedFd::from(copy)))
}
