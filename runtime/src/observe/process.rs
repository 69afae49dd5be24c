//! What /proc tells of processes.

use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::{Error, Result};

/// Start time (clock ticks since boot) and state from /proc/PID/stat. None where there is no such process.
pub fn stat(pid: i32) -> Option<(u64, char)> {
    let mut buffer = [0; 1024];
    let text = read(format!("/proc/{pid}/stat"), &mut buffer).ok()?;
    // The name of the process, in parentheses, may contain anything.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.nth(18)?.parse().ok()?, state))
}

/// The wait status that a zombie keeps for its parent, which root may read too.
pub fn exit_code(pid: i32) -> Option<i32> {
    let mut buffer = [0; 1024];
    let text = read(format!("/proc/{pid}/stat"), &mut buffer).ok()?;
    text.rsplit_once(')')?.1.split_ascii_whitespace().nth(49)?.parse().ok()
}

/// The signals that this process ignores, a bit each.
pub fn ignored_signals() -> Result<u64> {
    let path = "/proc/self/status";
    let mut buffer = [0; 4096];
    let text = read(path, &mut buffer).map_err(Error::path("read", path))?;
    let mask = text.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    Ok(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0))
}

/// A small file of procfs in one read: its content is made at that moment.
fn read(path: impl AsRef<Path>, buffer: &mut [u8]) -> rustix::io::Result<&str> {
    let file = openat(CWD, path.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let length = rustix::io::read(&file, &mut *buffer)?;
    Ok(std::str::from_utf8(&buffer[..length]).unwrap_or_else(|error| {
        // A name in another encoding: the rest of the line is ASCII.
        std::str::from_utf8(&buffer[error.valid_up_to()..length]).unwrap_or_default()
    }))
}
