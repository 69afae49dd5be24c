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

/// The process and, where it is the first of its PID namespace, all others in that.
pub fn headed_by(pid: i32) -> Vec<i32> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let mut buffer = [0; 4096];
    let status = read(format!("/proc/{pid}/status"), &mut buffer).unwrap_or_default();
    let inner = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .and_then(|list| list.split_whitespace().last());
    let (Some("1"), Some(own)) = (inner, namespace(pid)) else { return vec![pid] };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut pids: Vec<i32> = pids.filter(|other| namespace(*other).is_some_and(|its| its == own)).collect();
    pids.sort_unstable();
    pids
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

/// Whether this process lacks the host's root rights: an ordinary user, or root of a user namespace only.
pub fn is_rootless() -> bool {
    let whole = |text: String| text.split_whitespace().eq(["0", "0", "4294967295"]);
    !rustix::process::geteuid().is_root() || !std::fs::read_to_string("/proc/self/uid_map").is_ok_and(whole)
}

/// The name of the user whose process this is; empty for a user without a name.
pub fn user_name() -> String {
    let uid = rustix::process::getuid();
    if uid.is_root() {
        return "root".into();
    }
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = text.lines().find(|line| line.split(':').nth(2) == Some(uid.to_string().as_str()));
    line.and_then(|line| line.split(':').next()).unwrap_or_default().to_owned()
}
