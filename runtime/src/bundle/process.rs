//! The process part of a plan: what `create` and `exec` both hand to init.

use std::collections::HashMap;

use oci_spec::runtime::{
    IOPriorityClass, LinuxSchedulerFlag as Flag, LinuxSchedulerPolicy as Policy, PosixRlimitType as Limit,
};
use serde::{Deserialize, Serialize};

use super::capabilities::Sets;
use super::spec::Process as Spec;
use crate::{Error, Result};

/// What sd_listen_fds(3) looks for, until the program's pid is known.
pub const LISTEN_PID: &str = "LISTEN_PID=1";

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    /// runc makes a missing working directory at create, not at exec.
    pub make_cwd: bool,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// The kernel will refuse to set any groups, an empty list too: the caller's stay.
    pub groups_denied: bool,
    pub umask: Option<u32>,
    pub capabilities: Option<Sets>,
    /// (resource, soft, hard)
    pub rlimits: Vec<(u32, u64, u64)>,
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
    pub apparmor: Option<String>,
    pub selinux: Option<String>,
    pub scheduler: Option<Scheduler>,
    /// The value of ioprio_set(2).
    pub io_priority: Option<i32>,
    /// CPUs to run on: until the process is set up, and from then on.
    pub affinity: (Option<Vec<u32>>, Option<Vec<u32>>),
    pub terminal: Option<Window>,
    /// Descriptors from 3 on that the program gets.
    pub preserve_fds: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub rows: u16,
    pub columns: u16,
    /// As in runc, where the caller relays it: the caller's own terminal adds the carriage returns that it needs, and
    /// a pipe gets plain text.
    pub bare_line_feeds: bool,
}

/// The fields of sched_attr (sched_setattr(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

impl Process {
    /// Adds variables; of those that are set twice, the later counts, as in runc.
    pub fn set_env(&mut self, more: &[String]) {
        self.env.extend(more.iter().cloned());
        self.env = last_of_each(std::mem::take(&mut self.env));
    }

    /// What will not be as asked for, and is no error. `has_all`: in a user namespace of its own.
    pub fn warnings(&self, has_all: bool) -> impl Iterator<Item = String> {
        let own = rustix::thread::capabilities(None).map_or(u64::MAX, |sets| sets.permitted.bits());
        let have = if has_all { u64::MAX } else { own };
        self.capabilities.iter().flat_map(move |sets| sets.warnings(have))
    }

    pub fn from_spec(spec: &Spec) -> Result<Self> {
        let user = spec.user();
        // The kernel takes this id for "leave it as it is".
        let ids = user.additional_gids().iter().flatten().copied().chain([user.uid(), user.gid()]);
        if ids.into_iter().any(|id| id == u32::MAX) {
            return Err(Error::invalid("process.user", u32::MAX.to_string(), "ids up to 4294967294"));
        }
        let affinity = spec.exec_cpu_affinity().as_ref();
        let parse_cpus = |list: &Option<String>| {
            let list = list.as_deref().filter(|list| !list.trim().is_empty());
            list.map(|list| cpu_list("process.execCPUAffinity", list)).transpose()
        };
        Ok(Self {
            args: spec.args().clone().unwrap_or_default(),
            env: last_of_each(spec.env().clone().unwrap_or_default()),
            cwd: text(spec.cwd(), "process.cwd")?,
            make_cwd: false,
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            groups_denied: false,
            umask: user.umask(),
            capabilities: spec.capabilities().as_ref().map(Sets::from_spec),
            rlimits: spec
                .rlimits()
                .iter()
                .flatten()
                .map(|l| (resource(l.typ()), l.soft(), l.hard()))
                .collect(),
            no_new_privileges: spec.no_new_privileges().unwrap_or(false),
            oom_score_adj: *spec.oom_score_adj(),
            apparmor: spec.apparmor_profile().clone().filter(|name| !name.is_empty()),
            selinux: spec.selinux_label().clone().filter(|label| !label.is_empty()),
            scheduler: spec.scheduler().as_ref().map(scheduler).transpose()?,
            io_priority: spec.io_priority().map(|io| io_priority(io.class(), io.priority())).transpose()?,
            affinity: match affinity {
                Some(affinity) => (parse_cpus(affinity.initial())?, parse_cpus(affinity.r#final())?),
                None => (None, None),
            },
            terminal: spec.terminal().unwrap_or(false).then(|| window(spec)),
            preserve_fds: 0,
        })
    }
}

/// A path of the config as the text that init works with.
pub fn text(path: &std::path::Path, field: &str) -> Result<String> {
    match path.to_str() {
        Some(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(Error::invalid(field, path.display().to_string(), "a path in UTF-8 without NUL bytes")),
    }
}

/// Of variables that are set twice, the later counts, as in runc.
fn last_of_each(env: Vec<String>) -> Vec<String> {
    let key = |entry: &str| entry.split_once('=').map_or(entry, |(key, _)| key).to_owned();
    let last: HashMap<String, usize> = env.iter().enumerate().map(|(at, entry)| (key(entry), at)).collect();
    if last.len() == env.len() {
        return env;
    }
    env.into_iter()
        .enumerate()
        .filter(|(at, entry)| last[&key(entry)] == *at)
        .map(|(_, entry)| entry)
        .collect()
}

fn window(spec: &Spec) -> Window {
    let clamp = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
    spec.console_size().map_or_else(Window::default, |size| Window {
        rows: clamp(size.height()),
        columns: clamp(size.width()),
        bare_line_feeds: false,
    })
}

fn resource(kind: Limit) -> u32 {
    match kind {
        Limit::RlimitCpu => libc::RLIMIT_CPU,
        Limit::RlimitFsize => libc::RLIMIT_FSIZE,
        Limit::RlimitData => libc::RLIMIT_DATA,
        Limit::RlimitStack => libc::RLIMIT_STACK,
        Limit::RlimitCore => libc::RLIMIT_CORE,
        Limit::RlimitRss => libc::RLIMIT_RSS,
        Limit::RlimitNproc => libc::RLIMIT_NPROC,
        Limit::RlimitNofile => libc::RLIMIT_NOFILE,
        Limit::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        Limit::RlimitAs => libc::RLIMIT_AS,
        Limit::RlimitLocks => libc::RLIMIT_LOCKS,
        Limit::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        Limit::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        Limit::RlimitNice => libc::RLIMIT_NICE,
        Limit::RlimitRtprio => libc::RLIMIT_RTPRIO,
        Limit::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}

fn scheduler(spec: &oci_spec::runtime::Scheduler) -> Result<Scheduler> {
    let policy = match spec.policy() {
        Policy::SchedOther => 0,
        Policy::SchedFifo => 1,
        Policy::SchedRr => 2,
        Policy::SchedBatch => 3,
        Policy::SchedIso => 4,
        Policy::SchedIdle => 5,
        Policy::SchedDeadline => 6,
    };
    let realtime = matches!(policy, 1 | 2);
    let nice = spec.nice().unwrap_or(0);
    // The other policies do not look at it.
    if matches!(policy, 0 | 3) && !(-20..=19).contains(&nice) {
        return Err(Error::invalid("process.scheduler.nice", nice.to_string(), "-20 to 19"));
    }
    let priority = spec.priority().unwrap_or(0);
    if priority != 0 && !realtime {
        let expected = "0 unless the policy is SCHED_FIFO or SCHED_RR";
        return Err(Error::invalid("process.scheduler.priority", priority.to_string(), expected));
    }
    let (runtime, deadline, period) =
        (spec.runtime().unwrap_or(0), spec.deadline().unwrap_or(0), spec.period().unwrap_or(0));
    if policy != 6 && (runtime, deadline, period) != (0, 0, 0) {
        let expected = "runtime, deadline and period only with SCHED_DEADLINE";
        return Err(Error::invalid("process.scheduler.runtime", runtime.to_string(), expected));
    }
    let flags = spec.flags().iter().flatten().map(|flag| match flag {
        Flag::SchedResetOnFork => 0x01,
        Flag::SchedFlagReclaim => 0x02,
        Flag::SchedFlagDLOverrun => 0x04,
        Flag::SchedFlagKeepPolicy => 0x08,
        Flag::SchedFlagKeepParams => 0x10,
        Flag::SchedFlagUtilClampMin => 0x20,
        Flag::SchedFlagUtilClampMax => 0x40,
    });
    let priority = u32::try_from(priority).map_err(|_| {
        Error::invalid("process.scheduler.priority", priority.to_string(), "a positive number")
    })?;
    Ok(Scheduler { policy, flags: flags.sum(), nice, priority, runtime, deadline, period })
}

fn io_priority(class: IOPriorityClass, level: i64) -> Result<i32> {
    const CLASS_SHIFT: i32 = 13;
    let class = match class {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match i32::try_from(level) {
        Ok(level @ 0..=7) => Ok((class << CLASS_SHIFT) | level),
        _ => Err(Error::invalid("process.ioPriority.priority", level.to_string(), "0 to 7")),
    }
}

/// `0-3,7` as a list of CPUs, or of memory nodes.
pub fn cpu_list(field: &str, list: &str) -> Result<Vec<u32>> {
    const LIMIT: u32 = 8192;
    let bad = || Error::invalid(field, list, "a list such as 0-3,7");
    let mut cpus = Vec::new();
    for part in list.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
        if first > last || last >= LIMIT {
            return Err(bad());
        }
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(cpu_list("field", "0-2,7").unwrap(), [0, 1, 2, 7]);
        for bad in ["", "a", "3-1", "1-", "0-99999999"] {
            assert!(cpu_list("field", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_later_of_two_variables_counts() {
        let env = ["A=1", "B=2", "A=3"].map(String::from).to_vec();
        assert_eq!(last_of_each(env), ["B=2", "A=3"]);
    }
}
