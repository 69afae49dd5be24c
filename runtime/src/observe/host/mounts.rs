//! The mount API of Linux 5.2 and 5.12, the file systems of a container, overlay and id-mapped mounts. Nothing is
//! attached anywhere: a detached mount goes with its descriptor. What an ordinary user may mount it may only in
//! namespaces of its own, so that is where they are tried.

use std::error::Error as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::{Check, child, plain, told, wait};
use crate::isolate::{idmap, mounts};
use crate::sys::fd::Done;
use crate::sys::mount::{self as sys, Attr};
use crate::{Error, Result};

pub(super) fn check() -> Vec<Check> {
    vec![api().essential(), file_systems(), overlay(), id_mapped()]
}

/// Why `body` fails in new namespaces.
fn inside(body: impl FnOnce() -> Result<()>) -> Option<String> {
    const NAMESPACES: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;
    let number = |error: Error| {
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
        // The one error without a number is that of a file system that does not exist.
        u8::try_from(cause.unwrap_or(libc::ENODEV)).unwrap_or(u8::MAX)
    };
    let status = child(NAMESPACES, || body().map_or_else(number, |()| 0)).and_then(|child| wait(&child));
    match status {
        Ok(0) => None,
        Ok(errno) => Some(plain(io::Error::from_raw_os_error(errno))),
        Err(error) => Some(plain(error)),
    }
}

fn api() -> Check {
    const NAME: &str = "mount API";
    let failure = inside(|| {
        let read_only = Attr { set: sys::RDONLY, ..Attr::default() };
        let mount = new("tmpfs")?;
        sys::set_attr(mount.as_fd(), c"", true, read_only).map_err(Error::sys("mount_setattr"))?;
        // Whole: what an ordinary user sees of the host's mounts, it may not see parts of.
        clone("/", true).map(drop)
    });
    match failure {
        None => Check::ok(NAME, "fsopen, fsmount, open_tree, mount_setattr"),
        Some(reason) => Check::no(NAME, reason, "Linux 5.12 or later, and root or user namespaces"),
    }
}

fn file_systems() -> Check {
    const NAME: &str = "file systems";
    const KINDS: [&str; 5] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue"];
    let failure = |kind: &&str| inside(|| new(kind).map(drop)).map(|reason| format!("{kind} ({reason})"));
    let failures: Vec<_> = KINDS.iter().filter_map(failure).collect();
    if failures.is_empty() {
        return Check::ok(NAME, KINDS.join(", "));
    }
    let remedy =
        "configs without them; a kernel that has them; a caller whose own /proc and /sys are unmasked";
    Check::warn(NAME, format!("not {}", failures.join(", ")), remedy)
}

fn overlay() -> Check {
    match inside(|| new_overlay().map(drop)) {
        None => Check::ok("overlay", "mounts"),
        Some(reason) => Check::no("overlay", reason, "modprobe overlay, or unpack with --copy"),
    }
}

fn id_mapped() -> Check {
    const NAME: &str = "id-mapped mounts";
    if !rustix::process::geteuid().is_root() {
        return Check::no(NAME, "an ordinary user may make none", "root, where a config wants them");
    }
    let maps = [(0, 100_000, 65_536)];
    let userns = match idmap::user_namespace(&maps, &maps) {
        Ok(userns) => userns,
        Err(error) => return Check::no(NAME, told(&error), "root"),
    };
    let works = |mount: BorrowedFd<'_>| {
        let number = u64::from(userns.as_raw_fd().unsigned_abs());
        let attr = Attr { set: sys::IDMAP, userns: number, ..Attr::default() };
        sys::set_attr(mount, c"", false, attr)
    };
    let (mut can, mut cannot) = (Vec::new(), Vec::new());
    for (name, mount) in [("tmpfs", new("tmpfs")), ("the file system of /", clone("/", false))] {
        match mount.map(|mount| works(mount.as_fd())) {
            Ok(Ok(())) => can.push(name),
            Ok(Err(error)) => cannot.push(format!("{name} ({})", plain(error))),
            Err(error) => cannot.push(format!("{name} ({})", told(&error))),
        }
    }
    let overlay = match new_overlay().map(|mount| works(mount.as_fd())) {
        Ok(Err(_)) => "; overlay itself no, its layers instead",
        Ok(Ok(())) => "; overlay",
        Err(_) => "",
    };
    if cannot.is_empty() {
        return Check::ok(NAME, format!("{}{overlay}", can.join(", ")));
    }
    let found = format!("not on {}{overlay}", cannot.join(", "));
    let remedy = "root, Linux 5.12, a file system that supports them (ext4, xfs, btrfs; tmpfs from 6.3)";
    if can.is_empty() { Check::no(NAME, found, remedy) } else { Check::warn(NAME, found, remedy) }
}

fn new(kind: &str) -> Result<OwnedFd> {
    mounts::new_filesystem(kind, kind, &[], &[], 0, &Done::default())
}

fn new_overlay() -> Result<OwnedFd> {
    let layers = [("lowerdir".to_owned(), Some("/etc:/usr".to_owned()))];
    mounts::new_filesystem("overlay", "overlay", &layers, &[], 0, &Done::default())
}

fn clone(path: &str, whole: bool) -> Result<OwnedFd> {
    let tree = if whole { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | tree;
    open_tree(CWD, path, flags).map_err(Error::path("open_tree", path))
}
