//! state.json: what later commands must know of a container. Containers outlive the command that made them, and so
//! an upgrade of Hearth: every version reads what any earlier one wrote, and refuses in one line what a newer one did.
//!
//! How to change the record, or what is in it (`Placement`, `intel_rdt::Groups`):
//! - a field is added with a default, by which a container made without it goes on as it was made. If an older Hearth,
//!   which passes over the field, would do harm to a container that has it, [`VERSION`] goes up as well;
//! - no field is removed, renamed, or given another meaning, unless [`VERSION`] goes up and [`Record::parse`] turns
//!   what earlier versions wrote into the new form;
//! - a state of the new format, as a real command wrote it, goes into `tests/fixtures/states`. Those that are there
//!   stay: the tests here read each of them, and the suite (`upgrades.rs`) gives their format to living containers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::isolate::cgroup::Placement;
use crate::isolate::intel_rdt;
use crate::observe::process::{exit_code, stat};
use crate::{Error, Result};

pub const VERSION: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub version: u32,
    pub id: String,
    /// None while the container is being created.
    pub process: Option<Process>,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    pub owner: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    pub cgroups: Placement,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<intel_rdt::Groups>,
    /// Whether the stored config has poststop hooks; where the record does not say, the config is to be asked.
    #[serde(default = "yes")]
    pub poststop: bool,
    /// Where a command of ours saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// Namespaces (CLONE_NEW*) that are the container's own: what `exec` enters.
    pub namespaces: u64,
    /// Its PID namespace is another's too: the end of init does not end the others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shares_pids: bool,
}

fn yes() -> bool {
    true
}

/// Why a container's first process is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum End {
    Exited {
        status: i32,
    },
    Signalled {
        signal: i32,
    },
    /// Killed, in a container from which the OOM killer has taken a process.
    Oom {
        signal: i32,
    },
    /// Killed at its deadline.
    TimedOut,
    /// Nobody who could be asked saw it.
    Unknown,
    /// It never became the program: the step of the set-up that failed, and how.
    Failed {
        step: String,
        message: String,
    },
}

impl End {
    /// From a wait status, and how many processes the OOM killer has taken.
    pub fn new(status: i32, ooms: u64) -> Self {
        match (libc::WIFSIGNALED(status), libc::WTERMSIG(status)) {
            (false, _) => Self::Exited { status: libc::WEXITSTATUS(status) },
            (true, signal @ libc::SIGKILL) if ooms > 0 => Self::Oom { signal },
            (true, signal) => Self::Signalled { signal },
        }
    }
}

/// A process, safe from the reuse of its pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    pub pid: i32,
    /// Field 22 of /proc/PID/stat, clock ticks since boot.
    pub start_time: u64,
}

impl Record {
    pub fn parse(text: &[u8]) -> Result<Self> {
        let json = |source| Error::Json { what: "state.json".into(), source };
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let version = serde_json::from_slice::<Versioned>(text).map_err(json)?.version;
        if version > VERSION {
            let expected = format!("at most {VERSION}: the container was made by a newer hearth");
            return Err(Error::invalid("state.json version", version.to_string(), expected));
        }
        serde_json::from_slice(text).map_err(json)
    }
}

impl Process {
    pub fn of(pid: Pid) -> Result<Self> {
        let number = pid.as_raw_nonzero().get();
        let (start_time, _) = stat(number).ok_or(Error::InitGone)?;
        Ok(Self { pid: number, start_time })
    }

    /// Its wait status, while it is a zombie whose parent has not asked.
    pub fn wait_status(&self) -> Option<i32> {
        stat(self.pid).filter(|(start, state)| *start == self.start_time && *state == 'Z')?;
        exit_code(self.pid)
    }

    /// A descriptor of the process, if it is still the one that was recorded, and no zombie.
    pub fn open(&self) -> Option<rustix::fd::OwnedFd> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        self.is_alive().then_some(pidfd)
    }

    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|(start, state)| start == self.start_time && !matches!(state, 'Z' | 'X'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_its_pid_with_another_start_is_not() {
        let me = Process::of(rustix::process::getpid()).unwrap();
        assert!(me.is_alive());
        assert!(!Process { start_time: me.start_time + 1, ..me }.is_alive());
    }

    #[test]
    fn a_zombie_tells_how_it_ended() {
        let mut child = std::process::Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let process = Process::of(Pid::from_child(&child)).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while process.is_alive() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(process.wait_status().map(|status| End::new(status, 0)), Some(End::Exited { status: 7 }));
        child.wait().unwrap();
        assert_eq!(process.wait_status(), None);
    }

    #[test]
    fn the_reason_of_the_end_follows_from_the_wait_status() {
        assert_eq!(End::new(7 << 8, 0), End::Exited { status: 7 });
        assert_eq!(End::new(7 << 8, 1), End::Exited { status: 7 });
        assert_eq!(End::new(libc::SIGTERM, 1), End::Signalled { signal: libc::SIGTERM });
        assert_eq!(End::new(libc::SIGKILL, 0), End::Signalled { signal: libc::SIGKILL });
        assert_eq!(End::new(libc::SIGKILL, 2), End::Oom { signal: libc::SIGKILL });
    }

    #[test]
    fn every_format_there_ever_was_can_be_read() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/states");
        let states: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(states.len() >= 7, "{states:?}");
        for state in states {
            let text = std::fs::read(state.join("state.json")).unwrap();
            let record = Record::parse(&text).unwrap_or_else(|error| panic!("{state:?}: {}", error.chain()));
            assert!(record.process.is_some() && record.rootfs.is_absolute(), "{record:?}");
            let again = Record::parse(&serde_json::to_vec(&record).unwrap()).unwrap();
            assert_eq!(format!("{again:?}"), format!("{record:?}"));
        }
    }

    proptest::proptest! {
        #[test]
        fn a_newer_version_is_refused(version in VERSION + 1.., rest in "[a-z]{0,9}") {
            let text = format!(r#"{{"later": {{"field": "{rest}"}}, "version": {version}}}"#);
            let error = Record::parse(text.as_bytes()).unwrap_err().chain();
            assert!(error.contains(&version.to_string()) && error.contains("newer hearth"), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
    }
}
