//! From `linux.resources` to values for control files. Pure: nothing here touches the system.
//!
//! Every function validates what it translates, so a wrong value is known before a group exists. As in runc, 0
//! means "not set" for most numbers and -1 "unlimited". Files of v2 differ from v1 in name, unit and meaning;
//! what v2 has no file for is left out and told as a note.

mod v1;
mod v2;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources, LinuxThrottleDevice,
};

use crate::{Error, Result};

/// A kernel controller that limits something, by its v1 name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Controller {
    Memory,
    Cpu,
    Cpuset,
    Pids,
    Blkio,
    Hugetlb,
    Rdma,
    NetCls,
    NetPrio,
}

impl Controller {
    pub(super) const fn v1_name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
            Self::Pids => "pids",
            Self::Blkio => "blkio",
            Self::Hugetlb => "hugetlb",
            Self::Rdma => "rdma",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
        }
    }

    /// Nothing for what v2 does not have.
    pub(super) const fn v2_name(self) -> Option<&'static str> {
        match self {
            Self::Blkio => Some("io"),
            Self::NetCls | Self::NetPrio => None,
            other => Some(other.v1_name()),
        }
    }
}

/// One value for one control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) file: String,
    pub(super) value: String,
    pub(super) missing: Missing,
}

/// What to do where the kernel has no such file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Missing {
    Fail,
    Skip,
    Instead(Box<Setting>),
}

impl Setting {
    fn new(file: impl Into<String>, value: impl ToString) -> Self {
        Self { file: file.into(), value: value.to_string(), missing: Missing::Fail }
    }

    fn or_skip(self) -> Self {
        Self { missing: Missing::Skip, ..self }
    }

    fn or(self, other: Self) -> Self {
        Self { missing: Missing::Instead(Box::new(other)), ..self }
    }
}

/// The controllers that `resources` has something for.
pub(super) fn needed(resources: &LinuxResources) -> Vec<Controller> {
    let mut needed = Vec::new();
    let mut need = |controller, is_needed: bool| {
        if is_needed {
            needed.push(controller);
        }
    };
    let memory = resources.memory().unwrap_or_default();
    let cpu = resources.cpu().clone().unwrap_or_default();
    let is_set = |list: &Option<String>| list.as_ref().is_some_and(|text| !text.is_empty());
    need(
        Controller::Memory,
        [memory.limit(), memory.swap(), memory.reservation()].iter().any(|v| v.unwrap_or(0) != 0)
            || swappiness(&memory).is_some()
            || memory.disable_oom_killer() == Some(true),
    );
    need(
        Controller::Cpu,
        [cpu.shares(), cpu.period(), cpu.realtime_period()].iter().any(|v| v.unwrap_or(0) != 0)
            || [cpu.quota(), cpu.realtime_runtime()].iter().any(|v| v.unwrap_or(0) != 0)
            || cpu.burst().is_some()
            || cpu.idle().is_some(),
    );
    need(Controller::Cpuset, is_set(cpu.cpus()) || is_set(cpu.mems()));
    need(Controller::Pids, resources.pids().is_some());
    need(Controller::Blkio, resources.block_io().as_ref().is_some_and(|io| *io != LinuxBlockIo::default()));
    need(Controller::Hugetlb, resources.hugepage_limits().as_ref().is_some_and(|limits| !limits.is_empty()));
    need(Controller::Rdma, resources.rdma().as_ref().is_some_and(|rdma| !rdma.is_empty()));
    let network = resources.network().clone().unwrap_or_default();
    need(Controller::NetCls, network.class_id().unwrap_or(0) != 0);
    need(Controller::NetPrio, network.priorities().as_ref().is_some_and(|list| !list.is_empty()));
    needed
}

pub(super) use v1::settings as v1;
pub(super) use v2::{Current, settings as v2, unified};

/// What this host cannot do with `resources` and runc passes over too.
pub(super) fn notes(resources: &LinuxResources, is_v2: impl Fn(Controller) -> bool) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |field: &str, reason: &str, applies: bool| {
        if applies {
            notes.push(format!("linux.resources.{field}: ignored: {reason}"));
        }
    };
    let memory = resources.memory().unwrap_or_default();
    #[allow(deprecated, reason = "the field is read to say that it is ignored")]
    let kernel = memory.kernel();
    let obsolete = "kernels since 5.4 have no such limit";
    note("memory.kernel", obsolete, kernel.is_some_and(|v| v != 0));
    note("memory.kernelTCP", obsolete, memory.kernel_tcp().is_some_and(|v| v != 0));
    let absent = "cgroup v2 has no such setting";
    note("memory.swappiness", absent, is_v2(Controller::Memory) && swappiness(&memory).is_some());
    note(
        "memory.disableOOMKiller",
        absent,
        is_v2(Controller::Memory) && memory.disable_oom_killer() == Some(true),
    );
    let network = is_v2(Controller::NetCls) || is_v2(Controller::NetPrio);
    note("network", absent, network && resources.network().is_some());
    let io = resources.block_io().clone().unwrap_or_default();
    let has_leaf =
        io.leaf_weight().is_some() || io.weight_device().iter().flatten().any(|d| d.leaf_weight().is_some());
    note("blockIO leafWeight", absent, is_v2(Controller::Blkio) && has_leaf);
    notes
}

/// A number of bytes: 0 is "not set" and gives `None`, -1 is "unlimited".
fn bytes(field: &str, value: Option<i64>) -> Result<Option<i64>> {
    match value {
        None | Some(0) => Ok(None),
        Some(n) if n >= -1 => Ok(Some(n)),
        Some(n) => {
            let expected = "a number of bytes, or -1 for no limit";
            Err(Error::invalid(format!("linux.resources.{field}"), n.to_string(), expected))
        }
    }
}

struct MemoryLimits {
    limit: Option<i64>,
    /// Memory and swap together, as the spec and v1 have it.
    total: Option<i64>,
    reservation: Option<i64>,
}

fn memory_limits(memory: &LinuxMemory) -> Result<MemoryLimits> {
    let limit = bytes("memory.limit", memory.limit())?;
    let total = bytes("memory.swap", memory.swap())?;
    let reservation = bytes("memory.reservation", memory.reservation())?;
    if let (Some(limit @ 1..), Some(total @ 1..)) = (limit, total)
        && total < limit
    {
        let expected = format!("memory and swap together, so at least memory.limit ({limit})");
        return Err(Error::invalid("linux.resources.memory.swap", total.to_string(), expected));
    }
    // Memory without a limit and swap with one would make no sense.
    let total = if limit == Some(-1) { total.or(Some(-1)) } else { total };
    Ok(MemoryLimits { limit, total, reservation })
}

/// Engines write -1 for "not set" into this unsigned field.
fn swappiness(memory: &LinuxMemory) -> Option<u64> {
    memory.swappiness().filter(|&value| value != u64::MAX)
}

/// CPU or node lists as the kernel takes them: `0-3,7`, also with a stride (`0-31:2/8`).
fn cpu_list<'a>(field: &str, list: Option<&'a String>) -> Result<Option<&'a str>> {
    let Some(list) = list.map(|text| text.trim()).filter(|text| !text.is_empty()) else { return Ok(None) };
    if list.len() > 4096 || !list.bytes().all(|b| b.is_ascii_digit() || b",-:/".contains(&b)) {
        let shown: String = list.chars().take(40).collect();
        return Err(Error::invalid(
            format!("linux.resources.cpu.{field}"),
            format!("{shown:?}"),
            "a list as 0-3,7",
        ));
    }
    Ok(Some(list))
}

fn idle(cpu: &LinuxCpu) -> Result<Option<i64>> {
    match cpu.idle() {
        Some(n) if !(0..=1).contains(&n) => {
            Err(Error::invalid("linux.resources.cpu.idle", n.to_string(), "0 or 1"))
        }
        other => Ok(other),
    }
}

/// A limit of 0 is one: the container has its first process and can make no other. The kernel refuses even the
/// first with 0, so it is written as 1, as runc and systemd do.
fn pids_limit(limit: i64) -> String {
    match limit {
        ..0 => "max".to_owned(),
        0 => "1".to_owned(),
        n => n.to_string(),
    }
}

fn io_weight(field: &str, weight: Option<u16>) -> Result<Option<u16>> {
    match weight {
        None | Some(0) => Ok(None),
        Some(n @ 10..=1000) => Ok(Some(n)),
        Some(n) => Err(Error::invalid(
            format!("linux.resources.blockIO.{field}"),
            n.to_string(),
            "a weight from 10 to 1000",
        )),
    }
}

/// `major:minor` of a block device.
fn device(field: &str, major: i64, minor: i64) -> Result<String> {
    if u32::try_from(major).is_err() || u32::try_from(minor).is_err() {
        let field = format!("linux.resources.blockIO.{field}");
        return Err(Error::invalid(field, format!("{major}:{minor}"), "a device number"));
    }
    Ok(format!("{major}:{minor}"))
}

/// The four lists of throttles: the field's name, its v1 file, its v2 key.
fn throttles(io: &LinuxBlockIo) -> [(&'static str, &'static str, &'static str, &[LinuxThrottleDevice]); 4] {
    fn list(devices: &Option<Vec<LinuxThrottleDevice>>) -> &[LinuxThrottleDevice] {
        devices.as_deref().unwrap_or_default()
    }
    [
        ("throttleReadBpsDevice", "read_bps_device", "rbps", list(io.throttle_read_bps_device())),
        ("throttleWriteBpsDevice", "write_bps_device", "wbps", list(io.throttle_write_bps_device())),
        ("throttleReadIOPSDevice", "read_iops_device", "riops", list(io.throttle_read_iops_device())),
        ("throttleWriteIOPSDevice", "write_iops_device", "wiops", list(io.throttle_write_iops_device())),
    ]
}

/// The page size becomes part of a file's name.
fn page_size(index: usize, limit: &LinuxHugepageLimit) -> Result<&str> {
    let size = limit.page_size().as_str();
    let number =
        size.strip_suffix("KB").or(size.strip_suffix("MB")).or(size.strip_suffix("GB")).unwrap_or_default();
    if number.is_empty() || number.len() > 8 || !number.bytes().all(|b| b.is_ascii_digit()) {
        let field = format!("linux.resources.hugepageLimits[{index}].pageSize");
        return Err(Error::invalid(field, format!("{size:?}"), "a size as 64KB, 2MB or 1GB"));
    }
    if limit.limit() < -1 {
        let field = format!("linux.resources.hugepageLimits[{index}].limit");
        return Err(Error::invalid(
            field,
            limit.limit().to_string(),
            "a number of bytes, or -1 for no limit",
        ));
    }
    Ok(size)
}

/// rdma has the same file in both versions.
fn rdma(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for (device, limits) in resources.rdma().iter().flatten() {
        word("rdma", device)?;
        let mut value = device.clone();
        for (key, limit) in [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())] {
            if let Some(limit) = limit {
                value.push_str(&format!(" {key}={limit}"));
            }
        }
        if value.len() == device.len() {
            let field = format!("linux.resources.rdma.{device}");
            return Err(Error::invalid(field, "{}", "hcaHandles or hcaObjects"));
        }
        settings.push(Setting::new("rdma.max", value));
    }
    settings.sort_by(|a, b| a.value.cmp(&b.value));
    Ok(settings)
}

/// A name that is written as one word of a line.
fn word(field: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > 255 || !name.bytes().all(|b| b.is_ascii_graphic()) {
        let shown: String = name.chars().take(40).collect();
        return Err(Error::invalid(
            format!("linux.resources.{field}"),
            format!("{shown:?}"),
            "a name without blanks",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
