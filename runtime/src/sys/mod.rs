//! The only room with unsafe code: one family of kernel calls per file, safe functions out.
//!
//! What `rustix` or `nix` offers is used from there; this room holds only what neither has.
#![allow(unsafe_code, reason = "the one room for it; every block states its invariant")]

pub mod bpf;
pub mod clone;
pub mod entry;
pub mod fd;
pub mod keyring;
pub mod kill;
pub mod landlock;
pub mod mount;
pub mod net;
pub mod pidfd;
pub mod probe;
pub mod process;
pub mod seccomp;

use std::io;

/// Turns the -1 of a raw call into its errno.
fn check(ret: libc::c_long) -> io::Result<libc::c_long> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}
