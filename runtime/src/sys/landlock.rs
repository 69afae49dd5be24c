//! landlock(7): rulesets, which neither rustix nor nix has.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;

pub const EXECUTE: u64 = 1 << 0;
pub const WRITE_FILE: u64 = 1 << 1;
pub const READ_FILE: u64 = 1 << 2;
pub const READ_DIR: u64 = 1 << 3;
/// REMOVE_DIR, REMOVE_FILE and all of MAKE_*.
pub const CHANGE_DIR: u64 = 0x1ff0;
/// To link or rename into another directory.
pub const REFER: u64 = 1 << 13;
pub const TRUNCATE: u64 = 1 << 14;
/// The rights that a rule on something else than a directory may have.
pub const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE;

pub const BIND_TCP: u64 = 1 << 0;
pub const CONNECT_TCP: u64 = 1 << 1;

pub const ABSTRACT_UNIX_SOCKET: u64 = 1 << 0;
pub const SIGNAL: u64 = 1 << 1;

/// What a ruleset denies unless a rule allows it: struct landlock_ruleset_attr. Kernels that know less of it want
/// the rest to be zero.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Handled {
    pub files: u64,
    pub net: u64,
    pub scoped: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: RawFd,
}

#[repr(C)]
struct NetPort {
    allowed: u64,
    port: u64,
}

/// A ruleset without rules.
pub fn create(handled: &Handled) -> io::Result<OwnedFd> {
    let size = size_of::<Handled>();
    let handled = std::ptr::from_ref(handled);
    // SAFETY: the kernel reads `size` bytes of one structure that outlives the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, handled, size, 0) })?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel made this descriptor for this call, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Allows these rights on what `parent` is, and on all below it.
pub fn allow_beneath(ruleset: BorrowedFd<'_>, allowed: u64, parent: BorrowedFd<'_>) -> io::Result<()> {
    const PATH_BENEATH: libc::c_int = 1;
    let rule = PathBeneath { allowed, parent: parent.as_raw_fd() };
    add(ruleset, PATH_BENEATH, &rule)
}

/// Allows these rights on one TCP port.
pub fn allow_port(ruleset: BorrowedFd<'_>, allowed: u64, port: u16) -> io::Result<()> {
    const NET_PORT: libc::c_int = 2;
    add(ruleset, NET_PORT, &NetPort { allowed, port: port.into() })
}

fn add<T>(ruleset: BorrowedFd<'_>, kind: libc::c_int, rule: &T) -> io::Result<()> {
    let rule = std::ptr::from_ref(rule);
    // SAFETY: both callers, above, name the kind whose structure they give; it outlives the call.
    check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), kind, rule, 0) }).map(drop)
}

/// Binds this thread, and all that it becomes. Takes no_new_privs or CAP_SYS_ADMIN.
pub fn restrict_self(ruleset: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) }).map(drop)
}
