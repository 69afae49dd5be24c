//! What a process may do: from root with all capabilities down to what the plan grants.

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, remove_capability_from_bounding_set,
    set_capabilities, set_keep_capabilities,
};

use crate::bundle::capabilities::Sets;
use crate::bundle::process::{Process, Scheduler};
use crate::sys::process::{self as sys, SchedAttr};
use crate::{Error, Result};

/// CAP_LAST_CAP of every kernel there is or will be: the sets have 64 bits.
const LIMIT: u32 = 63;

pub fn set_limits(limits: &[(u32, u64, u64)]) -> Result<()> {
    for (resource, soft, hard) in limits {
        let limit = |value: u64| (value != u64::MAX).then_some(value);
        let rlimit = Rlimit { current: limit(*soft), maximum: limit(*hard) };
        let (name, kind) = resource_of(*resource);
        setrlimit(kind, rlimit).map_err(|errno| {
            let value = format!("{name} soft {soft} hard {hard}");
            let expected = "limits within the runtime's own hard limits, or CAP_SYS_RESOURCE";
            match errno {
                rustix::io::Errno::PERM => Error::Refused {
                    what: format!("process.rlimits: {value}: expected {expected}"),
                    source: errno.into(),
                },
                errno => Error::path("setrlimit", value)(errno),
            }
        })?;
    }
    Ok(())
}

/// All that there are: number, name, and rustix's word for it.
pub const LIMITS: [(u32, &str, Resource); 16] = [
    (libc::RLIMIT_CPU, "RLIMIT_CPU", Resource::Cpu),
    (libc::RLIMIT_FSIZE, "RLIMIT_FSIZE", Resource::Fsize),
    (libc::RLIMIT_DATA, "RLIMIT_DATA", Resource::Data),
    (libc::RLIMIT_STACK, "RLIMIT_STACK", Resource::Stack),
    (libc::RLIMIT_CORE, "RLIMIT_CORE", Resource::Core),
    (libc::RLIMIT_RSS, "RLIMIT_RSS", Resource::Rss),
    (libc::RLIMIT_NPROC, "RLIMIT_NPROC", Resource::Nproc),
    (libc::RLIMIT_NOFILE, "RLIMIT_NOFILE", Resource::Nofile),
    (libc::RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK", Resource::Memlock),
    (libc::RLIMIT_AS, "RLIMIT_AS", Resource::As),
    (libc::RLIMIT_LOCKS, "RLIMIT_LOCKS", Resource::Locks),
    (libc::RLIMIT_SIGPENDING, "RLIMIT_SIGPENDING", Resource::Sigpending),
    (libc::RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE", Resource::Msgqueue),
    (libc::RLIMIT_NICE, "RLIMIT_NICE", Resource::Nice),
    (libc::RLIMIT_RTPRIO, "RLIMIT_RTPRIO", Resource::Rtprio),
    (libc::RLIMIT_RTTIME, "RLIMIT_RTTIME", Resource::Rttime),
];

fn resource_of(number: u32) -> (&'static str, Resource) {
    let row = LIMITS.iter().find(|(of, ..)| *of == number).unwrap_or(&LIMITS[LIMITS.len() - 1]);
    (row.1, row.2)
}

pub fn set_scheduling(scheduler: Option<&Scheduler>, io_priority: Option<i32>) -> Result<()> {
    if let Some(scheduler) = scheduler {
        let attr = SchedAttr {
            policy: scheduler.policy,
            flags: scheduler.flags,
            nice: scheduler.nice,
            priority: scheduler.priority,
            runtime: scheduler.runtime,
            deadline: scheduler.deadline,
            period: scheduler.period,
            ..SchedAttr::default()
        };
        sys::set_scheduler(attr).map_err(|error| {
            let hint = match error.raw_os_error() {
                // sched_setattr(2): SCHED_DEADLINE wants all CPUs. In runc's words.
                Some(libc::EPERM) => {
                    ": process scheduler can't be used together with AllowedCPUs, or lacks CAP_SYS_NICE"
                }
                _ => "",
            };
            Error::path("sched_setattr", format!("process.scheduler{hint}"))(error)
        })?;
    }
    io_priority.map_or(Ok(()), |value| {
        sys::set_io_priority(value).map_err(Error::sys("ioprio_set (process.ioPriority)"))
    })
}

/// Runs on these CPUs only; those that the machine lacks are left out by the kernel.
pub fn set_affinity(cpus: &[u32]) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    for cpu in cpus
        .iter()
        .filter_map(|cpu| usize::try_from(*cpu).ok())
        .filter(|cpu| *cpu < rustix::thread::CpuSet::MAX_CPU)
    {
        set.set(cpu);
    }
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(Error::sys("sched_setaffinity (process.execCPUAffinity)"))
}

/// Runs on every CPU that the container's cpuset has: the caller's own affinity is not the container's, as in runc.
pub fn reset_affinity() -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    (0..rustix::thread::CpuSet::MAX_CPU).for_each(|cpu| set.set(cpu));
    rustix::thread::sched_setaffinity(None, &set).map_err(Error::sys("sched_setaffinity"))
}

/// The user, with the capabilities kept across the change of ids, then the sets in the only order that works:
/// bounding while CAP_SETPCAP is there, ids while CAP_SETUID is, the rest last.
pub fn become_user(process: &Process) -> Result<()> {
    if process.groups_denied && !process.groups.is_empty() {
        let expected =
            "none (cannot set any additional groups in a rootless container), or groups that newgidmap maps";
        return Err(Error::invalid("process.user.additionalGids", format!("{:?}", process.groups), expected));
    }
    if let Some(sets) = &process.capabilities {
        drop_bounding(sets.bounding)?;
        if process.uid != 0 {
            set_keep_capabilities(true).map_err(Error::sys("PR_SET_KEEPCAPS"))?;
        }
    }
    let groups = (!process.groups_denied).then_some(process.groups.as_slice());
    sys::set_ids(process.uid, process.gid, groups).map_err(Error::path(
        "set user and groups",
        format!("{}:{} {:?} (process.user)", process.uid, process.gid, process.groups),
    ))?;
    let Some(sets) = &process.capabilities else { return Ok(()) };
    grant(sets)
}

fn drop_bounding(keep: u64) -> Result<()> {
    for cap in (0..LIMIT).filter(|cap| keep & (1 << cap) == 0) {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << cap)) {
            Ok(()) => {}
            // Beyond the last capability that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => return Err(Error::sys("PR_CAPBSET_DROP")(errno)),
        }
    }
    Ok(())
}

/// What the kernel or the runtime itself lacks is left out, as in runc, which warns.
fn grant(sets: &Sets) -> Result<()> {
    let have = rustix::thread::capabilities(None).map_err(Error::sys("capget"))?.permitted.bits();
    let set = |bits: u64| CapabilitySet::from_bits_retain(bits);
    let permitted = sets.permitted & have;
    let wanted = CapabilitySets {
        effective: set(sets.effective & permitted),
        permitted: set(permitted),
        inheritable: set(sets.inheritable & have),
    };
    set_capabilities(None, wanted).map_err(Error::sys("capset"))?;
    let ambient = sets.ambient & permitted & sets.inheritable;
    for cap in (0..LIMIT).filter(|cap| ambient & (1 << cap) != 0) {
        configure_capability_in_ambient_set(set(1 << cap), true)
            .map_err(Error::sys("PR_CAP_AMBIENT_RAISE"))?;
    }
    Ok(())
}
