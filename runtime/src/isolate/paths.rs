//! Masked and read-only paths. Works on the container's root as "/": what a path leads to is inside.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, FileType, fstat, major, minor};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::mounts::new_filesystem;
use crate::sys::fd::Done;
use crate::sys::mount::{self as sys, Attr};
use crate::{Error, Result};

/// The host's /dev/null, read-only, taken before the root is entered and checked to be what it says
/// (runc CVE-2025-31133, youki CVE-2025-62161).
pub fn null() -> Result<OwnedFd> {
    let path = "/dev/null";
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let null = open_tree(CWD, path, flags).map_err(Error::path("clone", path))?;
    let stat = fstat(&null).map_err(Error::path("stat", path))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::CharacterDevice || (major(stat.st_rdev), minor(stat.st_rdev)) != (1, 3) {
        return Err(Error::invalid("the host's /dev/null", format!("{kind:?}"), "the character device 1:3"));
    }
    // Read-only: its mode and owner are the host's, and stay so.
    let attr = Attr { set: sys::RDONLY | sys::NOSUID | sys::NOEXEC, ..Attr::default() };
    sys::set_attr(null.as_fd(), c"", false, attr).map_err(Error::path("mount_setattr", path))?;
    Ok(null)
}

/// Covers each path that exists: files by /dev/null, directories by an empty read-only tmpfs. Of each source one
/// mount is made; the others are clones of it.
pub fn mask(paths: &[String], null: OwnedFd, done: &Done) -> Result<()> {
    let mut file = Source::new(null, done);
    let mut directory: Option<Source<'_>> = None;
    for (index, path) in paths.iter().enumerate() {
        if paths[..index].contains(path) {
            continue;
        }
        let source = match rustix::fs::stat(path.as_str()) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(errno) => return Err(Error::path("stat", path)(errno)),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => &mut file,
            Ok(_) => match &mut directory {
                Some(source) => source,
                none => none.insert(Source::empty_directory(done)?),
            },
        };
        source.cover(path).map_err(Error::path("mask", path))?;
    }
    Ok(())
}

/// A mount to cover paths with: itself first, then clones of it.
struct Source<'a> {
    mount: OwnedFd,
    attached: bool,
    done: &'a Done,
}

impl<'a> Source<'a> {
    fn new(mount: OwnedFd, done: &'a Done) -> Self {
        Self { mount, attached: false, done }
    }

    fn empty_directory(done: &'a Done) -> Result<Self> {
        let attr = sys::RDONLY | sys::NOSUID | sys::NODEV | sys::NOEXEC;
        let data =
            [("mode".to_owned(), Some("755".to_owned())), ("nr_blocks".to_owned(), Some("1".to_owned()))];
        Ok(Self::new(new_filesystem("tmpfs", "tmpfs", &data, &["ro"], attr, done)?, done))
    }

    fn cover(&mut self, path: &str) -> rustix::io::Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
        if !self.attached {
            self.attached = true;
            return move_mount(&self.mount, "", CWD, path, flags);
        }
        // A clone of an attached mount is allowed, one of a detached mount only since Linux 6.15.
        let clone =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let copy = open_tree(&self.mount, "", clone)?;
        let moved = move_mount(&copy, "", CWD, path, flags);
        self.done.push(copy);
        moved
    }
}

/// Makes each path that exists, and what is mounted below it, read-only.
pub fn make_readonly(paths: &[String], done: &Done) -> Result<()> {
    let clone =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    for path in paths {
        let copy = match open_tree(CWD, path.as_str(), clone) {
            Ok(copy) => copy,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(errno) => return Err(Error::path("clone", path)(errno)),
        };
        let attr = Attr { set: sys::RDONLY, ..Attr::default() };
        sys::set_attr(copy.as_fd(), c"", true, attr).map_err(Error::path("make read-only", path))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
        move_mount(&copy, "", CWD, path.as_str(), flags).map_err(Error::path("make read-only", path))?;
        done.push(copy);
    }
    Ok(())
}
