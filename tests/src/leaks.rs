//! What a case left behind. The worker is PID 1 of its own PID and mount namespaces, so every process and mount that
//! is new in them is the case's; cgroups are recognised by the worker's token, which is part of every id and path.
//! A namespace lives by a process or by a mount of it, so that it needs no check of its own.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};

use crate::context::patience;

/// Cgroups and processes may take some seconds to go after the command has returned.
const PATIENCE: u64 = 2;

/// The state of the worker's world before a case.
#[derive(Debug)]
pub struct Before {
    mounts: BTreeSet<String>,
    processes: Vec<i32>,
    hostname: String,
    devices: BTreeSet<String>,
}

impl Before {
    pub fn look() -> Self {
        Self {
            mounts: mounts(),
            processes: processes(),
            hostname: hostname(),
            devices: names(Path::new("/dev")),
        }
    }

    /// What differs, after waiting for it to go. `dirs` have to be empty.
    pub fn leaks(&self, token: &str, dirs: &[PathBuf], reap: impl Fn()) -> Vec<String> {
        let started = Instant::now();
        loop {
            reap();
            let found = self.compare(token, dirs);
            if found.is_empty() || started.elapsed() > patience(PATIENCE) {
                return found;
            }
            sleep(Duration::from_millis(5));
        }
    }

    fn compare(&self, token: &str, dirs: &[PathBuf]) -> Vec<String> {
        let now = mounts();
        let mut found: Vec<String> =
            now.difference(&self.mounts).map(|m| format!("mount left: {m}")).collect();
        // A mount point that somebody else removes takes its copy here along; a runtime that unmounts leaves it.
        let gone = self.mounts.difference(&now).filter(|m| point(m).is_some_and(|p| Path::new(p).exists()));
        found.extend(gone.map(|m| format!("mount gone: {m}")));
        let new = processes().into_iter().filter(|pid| !self.processes.contains(pid));
        found.extend(new.map(|pid| format!("process left: {}", describe(pid))));
        found.extend(cgroups(token).into_iter().map(|dir| format!("cgroup left: {}", dir.display())));
        for dir in dirs {
            found.extend(names(dir).into_iter().map(|n| format!("file left: {}/{n}", dir.display())));
        }
        if hostname() != self.hostname {
            found.push(format!("hostname changed: {} became {}", self.hostname, hostname()));
        }
        let devices = names(Path::new("/dev"));
        found.extend(devices.symmetric_difference(&self.devices).map(|n| format!("/dev/{n} changed")));
        found
    }

    /// Removes what a failed case left, so that the next one starts clean.
    pub(crate) fn clean(&self, token: &str, reap: impl Fn()) {
        for pid in processes() {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let started = Instant::now();
        while !processes().is_empty() && started.elapsed() < patience(PATIENCE) {
            reap();
            sleep(Duration::from_millis(5));
        }
        for line in mounts().difference(&self.mounts) {
            if let Some(target) = point(line) {
                let _ = rustix::mount::unmount(target, UnmountFlags::DETACH);
            }
        }
        remove_cgroups(token);
    }
}

/// Removes every cgroup whose name carries the token, children first.
pub(crate) fn remove_cgroups(token: &str) {
    for dir in cgroups(token).iter().rev() {
        for (file, value) in [("freezer.state", "THAWED"), ("cgroup.kill", "1")] {
            // Not `fs::write`, which would make a file where the directory is no cgroup.
            if let Ok(mut file) = fs::OpenOptions::new().write(true).open(dir.join(file)) {
                let _ = file.write_all(value.as_bytes());
            }
        }
        let _ = fs::remove_dir(dir);
    }
}

/// `ID MOUNTPOINT TYPE SOURCE`, which identifies a mount and reads well. Not its options: those of cgroup2 are the whole
/// machine's, and each mount by runc changes them.
fn mounts() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let (fields, right): (Vec<&str>, Vec<&str>) = (left.split(' ').collect(), right.split(' ').collect());
        Some(format!("{} {} {} {}", fields.first()?, fields.get(4)?, right.first()?, right.get(1)?))
    };
    text.lines().filter_map(line).collect()
}

fn point(mount: &str) -> Option<&str> {
    mount.split(' ').nth(1)
}

/// Whether this is, or is below, a worker with PID and mount namespaces of its own.
pub(crate) fn is_apart() -> bool {
    fs::read_link("/proc/1/exe").ok() == std::env::current_exe().ok()
}

/// Every process of this PID namespace but the worker itself; none where it is the host's.
fn processes() -> Vec<i32> {
    if !is_apart() {
        return Vec::new();
    }
    names(Path::new("/proc")).iter().filter_map(|name| name.parse().ok()).filter(|pid| *pid != 1).collect()
}

fn describe(pid: i32) -> String {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find(|line| line.starts_with("State")).unwrap_or_default();
    format!("{pid} {} ({state})", String::from_utf8_lossy(&command).replace('\0', " "))
}

/// Parents come before their children.
fn cgroups(token: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(entry.path());
            }
        }
        if dir.to_string_lossy().contains(token) && is_cgroup(&dir) {
            found.push(dir);
        }
    }
    found.sort();
    found
}

/// A plain directory on a tmpfs that stands in for a hierarchy is none.
fn is_cgroup(dir: &Path) -> bool {
    const MAGICS: [i64; 2] = [0x0027_e0eb, 0x6367_7270];
    rustix::fs::statfs(dir).is_ok_and(|info| MAGICS.contains(&info.f_type))
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
