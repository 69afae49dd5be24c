//! The container's root: attached over the old one, then made the only one.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use rustix::process::{chdir, chroot, fchdir, pivot_root};

use super::cgroup::unescape;
use super::tree::Tree;
use crate::sys::mount::{self as sys, Attr};
use crate::{Error, Result};

/// Cuts the caller's mounts off and attaches the detached root over "/": no path is resolved again. The process
/// itself still sees the old tree, by paths, until [`enter`]. Hooks of the runtime may enter the namespace and look
/// for the root where it is outside: for them it is attached there (`at`), and is where we work.
pub fn attach(root: OwnedFd, at: Option<&str>) -> Result<Tree> {
    let private = Attr { propagation: libc::MS_PRIVATE, ..Attr::default() };
    // Recursive: else the unmounting of the old tree would reach the caller's mounts (crun #2059).
    sys::set_attr(CWD, c"/", true, private).map_err(Error::sys("make the old root private"))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    let place = at.unwrap_or("/");
    move_mount(&root, "", CWD, place, flags).map_err(Error::path("attach the root file system at", place))?;
    if at.is_some() {
        fchdir(&root).map_err(Error::path("chdir", place))?;
    }
    Ok(Tree::new(root))
}

/// Makes the attached root the root of this process, and drops the old one with all its mounts.
pub fn enter(tree: &Tree, executable: &OwnedFd, no_pivot: bool, at: Option<&str>) -> Result<()> {
    // Our own executable's mount, of a directory or of the file alone, goes with the old tree: closed without ever
    // being attached, it would cost a grace period of its own. Where the host has no such places it does. Not
    // earlier: devices may come from there.
    let over = |place| move_mount(executable, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
    let _ = over("/dev/pts").or_else(|_| over("/dev/full"));
    if no_pivot {
        unmount_full_views(at)?;
    }
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

/// Below a chroot the old tree stays mounted. Whoever sees a full procfs or sysfs may mount one anew, without what
/// masks the container's: so those of the old tree go.
fn unmount_full_views(at: Option<&str>) -> Result<()> {
    let path = "/proc/self/mountinfo";
    let text = std::fs::read_to_string(path).map_err(Error::path("read", path))?;
    for line in text.lines() {
        let mut fields = line.split(' ').skip(3);
        let (Some(root), Some(place)) = (fields.next(), fields.next()) else { continue };
        let kind = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').next());
        let place = unescape(place);
        // Paths lead through the old tree, or, below `at`, into the container's own.
        let is_own = at.is_some_and(|at| Path::new(place.as_ref()).starts_with(at));
        if root != "/" || !matches!(kind, Some("proc" | "sysfs")) || is_own {
            continue;
        }
        match unmount(place.as_ref(), UnmountFlags::DETACH) {
            // Another line's mount of the same path is gone, or was the container's.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(Error::path("unmount (for --no-pivot)", place.as_ref())(errno)),
        }
    }
    Ok(())
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
