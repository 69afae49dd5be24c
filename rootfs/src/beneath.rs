//! The only way to touch a tree that strangers filled: from a descriptor of its root, with the kernel keeping
//! every `..` and every link inside (openat2, RESOLVE_IN_ROOT), as a process in the container would see it.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a path below `root`; links are followed, but stay inside.
pub(crate) fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..32 {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {} // something was renamed elsewhere while a `..` was resolved
            answer => return answer,
        }
    }
    Err(Errno::AGAIN)
}

pub(crate) fn open_directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    open(root, path, DIRECTORY)
}

/// Opens a directory by one name in an open directory; a link is refused.
pub(crate) fn child_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

pub(crate) fn stat(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Errno> {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
}

pub(crate) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// The whole of a regular file below `root`, `None` when there is none.
pub(crate) fn read_file(root: BorrowedFd<'_>, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
    // NONBLOCK: a fifo must not hold us
    let file = match open(root, path.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut content = Vec::new();
    std::fs::File::from(file).take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(content))
}

/// Names in a directory, without `.` and `..`.
pub(crate) fn names(directory: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    each_name(directory, |name| {
        names.push(name.to_vec());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(names)
}

fn each_name(
    directory: BorrowedFd<'_>,
    mut visit: impl FnMut(&[u8]) -> Result<ControlFlow<()>, Errno>,
) -> Result<(), Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") && visit(name)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// The names of a file's extended attributes.
pub(crate) fn xattr_names(file: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut list = vec![0; rustix::fs::flistxattr_query(file)?];
    let length = if list.is_empty() { 0 } else { rustix::fs::flistxattr(file, &mut list[..])? };
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

/// Removes `name` in `parent` with all that is in it, and answers how many bytes of disk that frees.
///
/// Neither recursion nor a descriptor for each level: trees of hostile layers may be deeper than both allow.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<u64, Errno> {
    if let Some(freed) = remove_one(parent, name)? {
        return Ok(freed);
    }
    let mut freed = 0;
    let mut current = child_directory(parent, name)?;
    let mut way = Vec::new();
    loop {
        if let Some(child) = empty(current.as_fd(), &mut freed)? {
            current = child_directory(current.as_fd(), &child)?;
            way.push(child);
        } else if let Some(done) = way.pop() {
            current = rustix::fs::openat(&current, "..", DIRECTORY, Mode::empty())?;
            rustix::fs::unlinkat(&current, &done[..], AtFlags::REMOVEDIR)?;
        } else {
            rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
            return Ok(freed);
        }
    }
}

/// Removes what can be removed in one call each; answers the first directory that has something in it.
fn empty(directory: BorrowedFd<'_>, freed: &mut u64) -> Result<Option<Vec<u8>>, Errno> {
    let mut full = None;
    each_name(directory, |name| {
        match remove_one(directory, name)? {
            Some(bytes) => *freed += bytes,
            None => {
                full = Some(name.to_vec());
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(full)
}

/// `None` for a directory that is not empty.
fn remove_one(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<u64>, Errno> {
    let stat = match stat(parent, name) {
        Err(Errno::NOENT) => return Ok(Some(0)),
        answer => answer?,
    };
    if is_directory(&stat) {
        return match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(None),
            answer => answer.map(|()| Some(0)),
        };
    }
    rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
    let blocks = if stat.st_nlink == 1 { u64::try_from(stat.st_blocks).unwrap_or(0) } else { 0 };
    Ok(Some(blocks * 512))
}
