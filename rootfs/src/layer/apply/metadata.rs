//! Owner, mode, extended attributes and times of what was just made.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

pub(crate) use rustix::fs::Timestamps as Times;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Stat, Timespec, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::LayerError;
use crate::layer::tar::{Entry, Kind, Time};

/// Who unpacks. An ordinary user's files are all the user's own, without devices and privileged attributes; root of
/// a user namespace of its own gives them to other users in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    Root,
    NamespaceRoot,
    User,
}

/// Owner, mode and extended attributes, in this order: each of them undoes a part of those that follow.
pub(super) fn set(file: BorrowedFd<'_>, entry: &Entry, privilege: Privilege) -> Result<(), LayerError> {
    if privilege != Privilege::User {
        rustix::fs::fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
            .map_err(LayerError::call("set the owner", &entry.name))?;
    }
    rustix::fs::fchmod(file, mode(entry)).map_err(LayerError::call("set the mode", &entry.name))?;
    for (name, value) in xattrs(entry, privilege) {
        rustix::fs::fsetxattr(file, name, value, XattrFlags::empty())
            .map_err(LayerError::call("set an extended attribute", &entry.name))?;
    }
    Ok(())
}

/// The same, and the times, for what cannot be opened: links, devices, fifos.
pub(super) fn set_by_name(
    parent: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    privilege: Privilege,
) -> Result<(), LayerError> {
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    if privilege != Privilege::User {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), nofollow)
            .map_err(LayerError::call("set the owner", &entry.name))?;
    }
    if !matches!(entry.kind, Kind::Symlink(_)) {
        // follows no link: the name was made a moment ago, and is no link
        rustix::fs::chmodat(parent, name, mode(entry), AtFlags::empty())
            .map_err(LayerError::call("set the mode", &entry.name))?;
    }
    let mut wanted = xattrs(entry, privilege).peekable();
    if wanted.peek().is_some() {
        let failed = |error| LayerError::call("set an extended attribute", &entry.name)(error);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed)?;
        let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
        for (name, value) in wanted {
            rustix::fs::setxattr(&path, name, value, XattrFlags::empty()).map_err(failed)?;
        }
    }
    rustix::fs::utimensat(parent, name, &times(entry), nofollow)
        .map_err(LayerError::call("set the times", &entry.name))
}

pub(super) fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode)
}

/// An entry that says nothing of its last access gets its last change.
pub(super) fn times(entry: &Entry) -> Times {
    Times {
        last_access: timespec(entry.atime.unwrap_or(entry.mtime)),
        last_modification: timespec(entry.mtime),
    }
}

pub(super) fn times_of(stat: &Stat) -> Times {
    let time = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    Times {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

pub(super) fn epoch() -> Times {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    Times { last_access: zero, last_modification: zero }
}

fn timespec(time: Time) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanos) }
}

/// Removes what an entry for an existing directory does not repeat.
pub(super) fn clear_xattrs(file: BorrowedFd<'_>, privilege: Privilege) -> Result<(), Errno> {
    let names = crate::beneath::xattr_names(file)?;
    for name in names.iter().filter(|name| settable(name, privilege)) {
        rustix::fs::fremovexattr(file, &name[..])?;
    }
    Ok(())
}

fn xattrs(entry: &Entry, privilege: Privilege) -> impl Iterator<Item = (&[u8], &[u8])> {
    let all = entry.xattrs.iter().map(|(name, value)| (&name[..], &value[..]));
    all.filter(move |(name, _)| settable(name, privilege))
}

/// Labels and NFS lists belong to the host that made the layer; overlay's own attributes would make a layer
/// speak about the file system that it lies on.
fn settable(name: &[u8], privilege: Privilege) -> bool {
    let foreign = [&b"trusted.overlay."[..], b"user.overlay.", b"security.selinux", b"system.nfs4_acl"];
    !foreign.iter().any(|prefix| name.starts_with(prefix))
        && match privilege {
            Privilege::Root => true,
            Privilege::NamespaceRoot => name.starts_with(b"user.") || name == b"security.capability",
            Privilege::User => name.starts_with(b"user."),
        }
}
