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
    for path in paths {
        match file.cover(path) {
            Ok(()) | Err(Errno::NOENT) => {}
            // What move_mount(2) says of a file over a directory.
            Err(Errno::NOTDIR | Errno::INVAL) => {
                let source = match &mut directory {
                    Some(source) => source,
                    none => none.insert(Source::empty_directory(done)?),
                };
                match source.cover(path) {
                    // A path through something that is no directory does not exist.
                    Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                    Err(errno) => return Err(Error::path("mask", path)(errno)),
                }
            }
            Err(errno) => return Err(Error::path("mask", path)(errno)),
        }
    }
    Ok(())
}

struct Source<'a> {
    /// The first mount, once it is attached.
    attached: Option<OwnedFd>,
    /// One that waits for a path that exists.
    spare: Option<OwnedFd>,
    done: &'a Done,
}

impl<'a> Source<'a> {
    fn new(mount: OwnedFd, done: &'a Done) -> Self {
        Self { attached: None, spare: Some(mount), done }
    }

    fn empty_directory(done: &'a Done) -> Result<Self> {
        let attr = sys::RDONLY | sys::NOSUID | sys::NODEV | sys::NOEXEC;
        let data =
            [("mode".to_owned(), Some("755".to_owned())), ("nr_blocks".to_owned(), Some("1".to_owned()))];
        Ok(Self::new(new_filesystem("tmpfs", "tmpfs", &data, &["ro"], attr, done)?, done))
    }

    fn cover(&mut self, path: &str) -> rustix::io::Result<()> {
        let mount = match (self.spare.take(), &self.attached) {
            (Some(spare), _) => spare,
            // A clone of an attached mount is allowed, one of a detached mount only since Linux 6.15.
            (None, Some(attached)) => {
                let clone = OpenTreeFlags::OPEN_TREE_CLONE
                    | OpenTreeFlags::OPEN_TREE_CLOEXEC
                    | OpenTreeFlags::AT_EMPTY_PATH;
                open_tree(attached, "", clone)?
            }
            (None, None) => return Err(Errno::NOENT),
        };
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
        if let Err(errno) = move_mount(&mount, "", CWD, path, flags) {
            self.spare = Some(mount);
            return Err(errno);
        }
        match &self.attached {
            None => self.attached = Some(mount),
            Some(_) => self.done.push(mount),
        }
        Ok(())
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
