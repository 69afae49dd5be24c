//! mount_setattr(2), which neither rustix nor nix has, and the clone of our own executable.

use std::ffi::CStr;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

pub const RDONLY: u64 = 0x1;
pub const NOSUID: u64 = 0x2;
pub const NODEV: u64 = 0x4;
pub const NOEXEC: u64 = 0x8;
/// All the access-time modes; cleared whenever one of them is set.
pub const ATIME: u64 = 0x70;
pub const RELATIME: u64 = 0;
pub const NOATIME: u64 = 0x10;
pub const STRICTATIME: u64 = 0x20;
pub const NODIRATIME: u64 = 0x80;
pub const IDMAP: u64 = 0x0010_0000;
pub const NOSYMFOLLOW: u64 = 0x0020_0000;

/// struct mount_attr.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    pub set: u64,
    pub clear: u64,
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE; 0 leaves it.
    pub propagation: u64,
    /// The descriptor of a user namespace, with [`IDMAP`].
    pub userns: u64,
}

/// Changes the mount that `dir` (with an empty `path`) or `path` names; `recursive`: the whole tree.
pub fn set_attr(dir: BorrowedFd<'_>, path: &CStr, recursive: bool, attr: Attr) -> io::Result<()> {
    let mut flags = if path.is_empty() { libc::AT_EMPTY_PATH } else { libc::AT_SYMLINK_NOFOLLOW };
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: `path` is a C string and `attr` is a mount_attr of the given size; both outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<Attr>(),
        )
    })
    .map(drop)
}
