//! The files of the v1 controllers.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::{
    Controller, Setting, bytes, cpu_list, device, idle, io_weight, memory_limits, page_size, pids_limit,
};
use super::{rdma, swappiness, throttles, word};
use crate::{Error, Result};

pub(in super::super) fn settings(controller: Controller, resources: &LinuxResources) -> Result<Vec<Setting>> {
    let cpu = resources.cpu().as_ref();
    match controller {
        Controller::Memory => resources.memory().as_ref().map_or(Ok(Vec::new()), memory),
        Controller::Cpu => cpu.map_or(Ok(Vec::new()), processor),
        Controller::Cpuset => cpu.map_or(Ok(Vec::new()), cpuset),
        Controller::Pids => {
            Ok(resources.pids().iter().map(|p| Setting::new("pids.max", pids_limit(p.limit()))).collect())
        }
        Controller::Blkio => resources.block_io().as_ref().map_or(Ok(Vec::new()), blkio),
        Controller::Hugetlb => hugetlb(resources),
        Controller::Rdma => rdma(resources),
        Controller::NetCls => {
            let class = resources.network().as_ref().and_then(|n| n.class_id()).filter(|&id| id != 0);
            Ok(class.iter().map(|id| Setting::new("net_cls.classid", id)).collect())
        }
        Controller::NetPrio => priorities(resources),
    }
}

fn memory(memory: &LinuxMemory) -> Result<Vec<Setting>> {
    let limits = memory_limits(memory)?;
    let mut settings = Vec::new();
    if let Some(limit) = limits.limit {
        settings.push(Setting::new("memory.limit_in_bytes", limit));
    }
    if let Some(total) = limits.total {
        let setting = Setting::new("memory.memsw.limit_in_bytes", total);
        settings.push(if total == -1 { setting.or_skip() } else { setting });
    }
    if let Some(reservation) = limits.reservation {
        settings.push(Setting::new("memory.soft_limit_in_bytes", reservation));
    }
    if memory.disable_oom_killer() == Some(true) {
        settings.push(Setting::new("memory.oom_control", 1));
    }
    match swappiness(memory) {
        Some(value @ 0..=100) => settings.push(Setting::new("memory.swappiness", value)),
        Some(value) => {
            return Err(Error::invalid("linux.resources.memory.swappiness", value.to_string(), "0 to 100"));
        }
        None => {}
    }
    Ok(settings)
}

fn processor(cpu: &LinuxCpu) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    match cpu.shares() {
        None | Some(0) => {}
        // The kernel would clamp in silence.
        Some(shares @ 2..=262_144) => settings.push(Setting::new("cpu.shares", shares)),
        Some(shares) => {
            return Err(Error::invalid("linux.resources.cpu.shares", shares.to_string(), "2 to 262144"));
        }
    }
    if let Some(period) = cpu.period().filter(|&v| v != 0) {
        settings.push(Setting::new("cpu.cfs_period_us", period));
    }
    if let Some(quota) = bytes("cpu.quota", cpu.quota())? {
        settings.push(Setting::new("cpu.cfs_quota_us", quota));
    }
    if let Some(burst) = cpu.burst() {
        settings.push(Setting::new("cpu.cfs_burst_us", burst).or_skip());
    }
    if let Some(idle) = idle(cpu)? {
        settings.push(Setting::new("cpu.idle", idle));
    }
    if let Some(period) = cpu.realtime_period().filter(|&v| v != 0) {
        settings.push(Setting::new("cpu.rt_period_us", period));
    }
    if let Some(runtime) = bytes("cpu.realtimeRuntime", cpu.realtime_runtime())? {
        settings.push(Setting::new("cpu.rt_runtime_us", runtime));
    }
    Ok(settings)
}

fn cpuset(cpu: &LinuxCpu) -> Result<Vec<Setting>> {
    let cpus = cpu_list("cpus", cpu.cpus().as_ref())?.map(|list| Setting::new("cpuset.cpus", list));
    let mems = cpu_list("mems", cpu.mems().as_ref())?.map(|list| Setting::new("cpuset.mems", list));
    Ok(cpus.into_iter().chain(mems).collect())
}

fn blkio(io: &LinuxBlockIo) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    let bfq = |file: &str, value: String| {
        Setting::new(format!("blkio.{file}"), &value).or(Setting::new(format!("blkio.bfq.{file}"), &value))
    };
    if let Some(weight) = io_weight("weight", io.weight())? {
        settings.push(bfq("weight", weight.to_string()));
    }
    if let Some(weight) = io_weight("leafWeight", io.leaf_weight())? {
        settings.push(Setting::new("blkio.leaf_weight", weight));
    }
    for weighted in io.weight_device().iter().flatten() {
        let device = device("weightDevice", weighted.major(), weighted.minor())?;
        if let Some(weight) = io_weight("weightDevice.weight", weighted.weight())? {
            settings.push(bfq("weight_device", format!("{device} {weight}")));
        }
        if let Some(weight) = io_weight("weightDevice.leafWeight", weighted.leaf_weight())? {
            settings.push(Setting::new("blkio.leaf_weight_device", format!("{device} {weight}")));
        }
    }
    for (field, file, _, devices) in throttles(io) {
        for throttle in devices {
            let device = device(field, throttle.major(), throttle.minor())?;
            let value = format!("{device} {}", throttle.rate());
            settings.push(Setting::new(format!("blkio.throttle.{file}"), value));
        }
    }
    Ok(settings)
}

fn hugetlb(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let size = page_size(index, limit)?;
        settings.push(Setting::new(format!("hugetlb.{size}.limit_in_bytes"), limit.limit()));
        settings.push(Setting::new(format!("hugetlb.{size}.rsvd.limit_in_bytes"), limit.limit()).or_skip());
    }
    Ok(settings)
}

fn priorities(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for entry in resources.network().iter().filter_map(|n| n.priorities().as_ref()).flatten() {
        word("network.priorities", entry.name())?;
        settings.push(Setting::new("net_prio.ifpriomap", format!("{} {}", entry.name(), entry.priority())));
    }
    Ok(settings)
}
