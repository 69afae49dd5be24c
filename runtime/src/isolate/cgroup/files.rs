//! Control files: short texts, read and written whole.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use crate::{Error, Result};

/// No control file of the kernel is longer; `/proc/self/mountinfo` of a crowded host can be a few MiB.
const MAX_LENGTH: usize = 16 << 20;

pub(super) fn read(path: &Path) -> io::Result<String> {
    read_at(CWD, path)
}

pub(super) fn read_at(dir: impl AsFd, name: impl rustix::path::Arg) -> io::Result<String> {
    let fd = rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = vec![0; 4096];
    let mut length = 0;
    loop {
        match rustix::io::read(&fd, &mut text[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if length == text.len() {
            if length >= MAX_LENGTH {
                return Err(io::Error::from(io::ErrorKind::FileTooLarge));
            }
            text.resize(length * 2, 0);
        }
    }
    text.truncate(length);
    String::from_utf8(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    let fd = open_for_write(path)?;
    write_fd(&fd, value)
}

pub(super) fn open_for_write(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// One value is one write(2): the kernel parses each call for itself.
pub(super) fn write_fd(fd: impl AsFd, value: &str) -> io::Result<()> {
    match rustix::io::retry_on_intr(|| rustix::io::write(&fd, value.as_bytes()))? {
        written if written == value.len() => Ok(()),
        _ => Err(io::Error::from(io::ErrorKind::WriteZero)),
    }
}

pub(super) fn write_value(path: &Path, value: &str) -> Result<()> {
    write(path, value).map_err(|source| refused(path, value, source))
}

pub(super) fn refused(path: &Path, value: &str, source: io::Error) -> Error {
    let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let hint = match (file, source.raw_os_error()) {
        ("cgroup.subtree_control", Some(libc::EBUSY)) => {
            ": a group that holds processes cannot limit groups below it"
        }
        ("memory.limit_in_bytes" | "memory.memsw.limit_in_bytes", Some(libc::EBUSY)) => {
            ": more is in use already"
        }
        ("cgroup.subtree_control", Some(libc::EOPNOTSUPP)) => ": the group is threaded, or below one that is",
        (_, Some(libc::ENOENT)) => ": this kernel or group has no such control",
        _ => "",
    };
    Error::Write { path: path.to_owned(), value: value.to_owned(), hint, source }
}

/// Reads a control file of `dir`, or nothing where the file or the group is gone.
pub(super) fn read_if_there(dir: &Path, file: &str) -> Result<Option<String>> {
    let path = dir.join(file);
    match read(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(Error::path("read", path)(error)),
    }
}

/// A group that is removed while its file is open reads as ENODEV.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// The number after `key` in a file of `key number` lines.
pub(super) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
