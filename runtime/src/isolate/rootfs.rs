//! The container's root: attached over the old one, then made the only one.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use rustix::process::{chdir, chroot, fchdir, pivot_root};

use super::tree::Tree;
use crate::sys::mount::{self as sys, Attr};
use crate::{Error, Result};

/// Cuts the caller's mounts off and attaches the detached root over "/": no path is resolved again. The process
/// itself still sees the old tree, by paths, until [`enter`].
pub fn attach(root: OwnedFd, executable: &OwnedFd) -> Result<Tree> {
    let private = Attr { propagation: libc::MS_PRIVATE, ..Attr::default() };
    // Recursive: else the unmounting of the old tree would reach the caller's mounts (crun #2059).
    sys::set_attr(CWD, c"/", true, private).map_err(Error::sys("make the old root private"))?;
    move_mount(&root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(Error::sys("attach the root file system"))?;
    // Our own executable's mount, of a directory or of the file alone, goes with the old tree: closed without ever
    // being attached, it would cost a grace period of its own. Where the host has no such places it does.
    let over = |place| move_mount(executable, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
    let _ = over("/dev/pts").or_else(|_| over("/dev/full"));
    Ok(Tree::new(root))
}

/// Makes the attached root the root of this process, and drops the old one with all its mounts.
pub fn enter(tree: &Tree, no_pivot: bool) -> Result<()> {
    fchdir(tree.root()).map_err(Error::sys("fchdir to the root file system"))?;
    if no_pivot {
        chroot(".").map_err(Error::sys("chroot"))?;
    } else {
        // pivot_root(2), "pivot_root(".", ".")": the old root comes to lie on the new one and is unmounted there.
        pivot_root(".", ".").map_err(Error::sys("pivot_root"))?;
        unmount(".", UnmountFlags::DETACH).map_err(Error::sys("unmount the old root"))?;
    }
    chdir("/").map_err(Error::sys("chdir /"))
}

/// As configured, once nothing is to be made in it any more.
pub fn finish(tree: &Tree, propagation: Option<(u64, bool)>, readonly: bool) -> Result<()> {
    if let Some((kind, recursive)) = propagation {
        let attr = Attr { propagation: kind, ..Attr::default() };
        sys::set_attr(tree.root().as_fd(), c"", recursive, attr)
            .map_err(Error::sys("set rootfsPropagation"))?;
    }
    if readonly {
        let attr = Attr { set: sys::RDONLY, ..Attr::default() };
        sys::set_attr(tree.root().as_fd(), c"", false, attr)
            .map_err(Error::sys("make the root read-only"))?;
    }
    Ok(())
}
