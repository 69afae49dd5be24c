//! kill(2) with any signal number: the enums of `nix` and `rustix` leave out the realtime signals.

use std::io;

/// Sends `signal` to one process. Groups of processes, which kill(2) takes as 0 and below, are refused.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: the call takes two integers and touches no memory of ours.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
