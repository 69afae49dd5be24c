//! Walking the groups below a group. A container may nest them deeper than a path can say, so the walk goes by
//! descriptors, one at a time: down by name, up by `..`.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::files;

fn open(at: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn children(dir: &OwnedFd) -> Result<Vec<CString>, Errno> {
    // Two links and one for each directory inside.
    if rustix::fs::fstat(dir)?.st_nlink == 2 {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Calls `enter` for every group from `dir` downwards, and `leave` with parent and name after all below a group
/// has been seen, `dir` itself excepted. Groups that vanish meanwhile are passed over.
fn walk(
    dir: &Path,
    mut enter: impl FnMut(&OwnedFd) -> io::Result<()>,
    mut leave: impl FnMut(&OwnedFd, &CStr) -> io::Result<()>,
) -> io::Result<()> {
    let mut here = open(CWD, dir)?;
    enter(&here)?;
    let mut path: Vec<CString> = Vec::new();
    let mut unseen = vec![children(&here)?];
    while let Some(siblings) = unseen.last_mut() {
        if let Some(name) = siblings.pop() {
            match open(&here, &*name) {
                Ok(child) => here = child,
                Err(Errno::NOENT | Errno::NODEV) => continue,
                Err(error) => return Err(error.into()),
            }
            enter(&here)?;
            unseen.push(children(&here)?);
            path.push(name);
        } else {
            unseen.pop();
            if let Some(name) = path.pop() {
                here = open(&here, "..")?;
                leave(&here, &name)?;
            }
        }
    }
    Ok(())
}

/// The processes of `dir` and all groups below, as seen from our PID namespace.
pub(super) fn processes(dir: &Path) -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    let read = |group: &OwnedFd| match files::read_at(group, "cgroup.procs") {
        // A threaded group lists its processes in the domain above, its threads itself.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            files::read_at(group, "cgroup.threads")
        }
        other => other,
    };
    let enter = |group: &OwnedFd| {
        match read(group) {
            // A process outside our PID namespace shows as 0.
            Ok(text) => {
                pids.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|&pid: &i32| pid > 0))
            }
            Err(error) if files::is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    };
    match walk(dir, enter, |_, _| Ok(())) {
        Err(error) if files::is_gone(&error) => {}
        other => other?,
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Removes `dir` and all groups below; EBUSY while a process is left in one of them. Gone already is well.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    let gone_is_well = |result: Result<(), Errno>| match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    };
    let direct = gone_is_well(rustix::fs::rmdir(dir));
    let Err(first) = direct else { return Ok(()) };
    // A read-only mount says so even of what is not there.
    match rustix::fs::stat(dir) {
        Err(Errno::NOENT) => return Ok(()),
        _ if first != Errno::BUSY && first != Errno::NOTEMPTY => return Err(first.into()),
        _ => {}
    }
    let leave = |parent: &OwnedFd, name: &CStr| {
        gone_is_well(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)).map_err(io::Error::from)
    };
    match walk(dir, |_| Ok(()), leave) {
        Err(error) if files::is_gone(&error) => {}
        other => other?,
    }
    Ok(gone_is_well(rustix::fs::rmdir(dir))?)
}
