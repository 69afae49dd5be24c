//! kill(2) and pidfd_send_signal(2) with any signal number: the enums of `nix` and `rustix` leave out the realtime signals.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sends `signal` to one process. Groups of processes, which kill(2) takes as 0 and below, are refused.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: the call takes two integers and touches no memory of ours.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends `signal` to the process behind `pidfd`.
pub fn pidfd_send(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed: the kernel fills in what kill(2) would.
    let ret =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, info, 0) };
    super::check(ret).map(drop)
}
