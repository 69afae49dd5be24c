//! `tmpcopyup`: what a tmpfs covers is copied into it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, Uid, chownat, fchmod,
    fchown, futimens, mkdirat, mknodat, openat, readlinkat, statat, symlinkat,
};

/// As deep as PATH_MAX allows; beyond it something is wrong.
const DEPTH: u32 = 2048;

/// Copies the contents of the directory `from` to the directory `to`, with owners, modes and times.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    directory(from, to, DEPTH)
}

fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    let readable = openat(from, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in Dir::read_from(&readable)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(readable.as_fd(), to, name, depth)?;
        }
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: u32) -> io::Result<()> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let kind = FileType::from_raw_mode(stat.st_mode as RawMode);
    match kind {
        FileType::Directory => {
            mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let (inner_from, inner_to) =
                (open(from, name, OFlags::DIRECTORY)?, open(to, name, OFlags::DIRECTORY)?);
            directory(inner_from.as_fd(), inner_to.as_fd(), depth - 1)?;
            return finish(&inner_to, &stat, mode);
        }
        FileType::RegularFile => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let copy = openat(to, name, flags, Mode::from_raw_mode(0o600))?;
            let (mut reader, mut writer) =
                (std::fs::File::from(open(from, name, OFlags::empty())?), std::fs::File::from(copy));
            io::copy(&mut reader, &mut writer)?;
            return finish(&writer.into(), &stat, mode);
        }
        FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?.as_c_str(), to, name)?,
        _ => mknodat(to, name, kind, mode, stat.st_rdev)?,
    }
    let (uid, gid) = owner(&stat);
    Ok(chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn open(at: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(openat(at, name, flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

fn owner(stat: &Stat) -> (Uid, Gid) {
    (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))
}

fn finish(copy: &OwnedFd, stat: &Stat, mode: Mode) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    fchown(copy, Some(uid), Some(gid))?;
    fchmod(copy, mode)?;
    let time = |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds.cast_signed() };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(futimens(copy, &times)?)
}
