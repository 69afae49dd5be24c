//! /dev of a container: device nodes and the links that the spec requires.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, makedev, mknodat, openat2,
    symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::mounts::attach;
use super::tree::Tree;
use crate::bundle::plan::Device;
use crate::{Error, Result};

const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// Fills /dev. `by_bind`: in a user namespace nodes cannot be made, so the host's are mounted.
pub fn fill(tree: &Tree, devices: &[Device], by_bind: bool) -> Result<()> {
    let dev = dev_directory(tree)?;
    for device in devices {
        let path = Path::new(&device.path);
        let fail = || Error::path::<std::io::Error>("make device", path);
        let (parent, name) = match path.strip_prefix("/dev") {
            Ok(name) if name.components().count() == 1 => (None, name.as_os_str()),
            _ => {
                let (parent, name) = tree.parent(path).map_err(fail())?;
                (Some(parent), name)
            }
        };
        // /dev/ptmx is a link into the container's own devpts.
        if path == Path::new("/dev/ptmx") {
            continue;
        }
        let parent = parent.as_ref().map_or(dev.as_fd(), AsFd::as_fd);
        if by_bind || !node(parent, name, device)? {
            bind(tree, device)?;
        }
    }
    for (target, name) in LINKS {
        link(dev.as_fd(), target, name)?;
    }
    if rustix::fs::access("/proc/kcore", rustix::fs::Access::EXISTS).is_ok() {
        link(dev.as_fd(), "/proc/kcore", "core")?;
    }
    if symlinkat("pts/ptmx", &dev, "ptmx").is_ok() {
        return Ok(());
    }
    // The image brought one, which would lead to the host's terminals.
    unlinkat(&dev, "ptmx", AtFlags::empty()).map_err(Error::path("replace", "/dev/ptmx"))?;
    link(dev.as_fd(), "pts/ptmx", "ptmx")
}

/// /dev itself, never through a symlink that the image put there (runc CVE-2026-41579, crun CVE-2026-47766).
pub fn dev_directory(tree: &Tree) -> Result<OwnedFd> {
    let open = || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(tree.root(), "dev", flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
    };
    match open() {
        Err(Errno::NOENT) => {
            tree.make_directory("/dev").map_err(Error::path("mkdir", "/dev"))?;
            open().map_err(Error::path("open", "/dev"))
        }
        Err(Errno::LOOP) => Err(Error::invalid("/dev of the root file system", "a symlink", "a directory")),
        result => result.map_err(Error::path("open", "/dev")),
    }
}

/// False where this process may not, as one without CAP_MKNOD or in the user namespace of an engine.
fn node(parent: BorrowedFd<'_>, name: &std::ffi::OsStr, device: &Device) -> Result<bool> {
    let kind = FileType::from_raw_mode(device.mode);
    let mode = Mode::from_raw_mode(device.mode & 0o7777);
    match mknodat(parent, name, kind, mode, makedev(device.major, device.minor)) {
        Ok(()) => {}
        // The image brought one of that name, on a /dev that is part of the root: it stays, as in runc.
        Err(Errno::EXIST) => return Ok(true),
        Err(Errno::PERM) => return Ok(false),
        Err(errno) => return Err(Error::path("mknod", &device.path)(errno)),
    }
    if (device.uid, device.gid) == (0, 0) {
        return Ok(true);
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Error::path("chown", &device.path))?;
    Ok(true)
}

fn bind(tree: &Tree, device: &Device) -> Result<()> {
    let fail = |call: &'static str| Error::path(call, &device.path);
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let source = open_tree(CWD, &device.path, flags).map_err(fail("clone the host's"))?;
    let target = tree.make_file(&device.path).map_err(Error::path("make", &device.path))?;
    attach(&source, target.as_fd()).map_err(Error::path("mount device on", &device.path))
}

fn link(dev: BorrowedFd<'_>, target: &str, name: &str) -> Result<()> {
    match symlinkat(target, dev, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(Error::path("symlink", Path::new("/dev").join(name))(errno)),
    }
}
