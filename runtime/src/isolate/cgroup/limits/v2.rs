//! The files of the unified hierarchy.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::{
    Controller, Missing, Setting, cpu_list, device, idle, io_weight, memory_limits, page_size, pids_limit,
};
use super::{rdma, throttles};
use crate::{Error, Result};

/// What a group has at present, for updates that name only half of a pair. Empty for a new group.
#[derive(Debug, Default)]
pub(in super::super) struct Current {
    /// The text of `cpu.max`.
    pub(in super::super) cpu_max: Option<String>,
}

pub(in super::super) fn settings(
    controller: Controller,
    resources: &LinuxResources,
    current: &Current,
) -> Result<Vec<Setting>> {
    let cpu = resources.cpu().as_ref();
    match controller {
        Controller::Memory => resources.memory().as_ref().map_or(Ok(Vec::new()), memory),
        Controller::Cpu => cpu.map_or(Ok(Vec::new()), |cpu| processor(cpu, current)),
        Controller::Cpuset => cpu.map_or(Ok(Vec::new()), cpuset),
        Controller::Pids => {
            Ok(resources.pids().iter().map(|p| Setting::new("pids.max", pids_limit(p.limit()))).collect())
        }
        Controller::Blkio => resources.block_io().as_ref().map_or(Ok(Vec::new()), io),
        Controller::Hugetlb => hugetlb(resources),
        Controller::Rdma => rdma(resources),
        Controller::NetCls | Controller::NetPrio => Ok(Vec::new()),
    }
}

fn amount(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn memory(memory: &LinuxMemory) -> Result<Vec<Setting>> {
    let limits = memory_limits(memory)?;
    let mut settings = Vec::new();
    if let Some(total) = limits.total {
        let swap = match limits.limit {
            _ if total == -1 => -1,
            Some(-1) => total,
            Some(limit) => total - limit,
            None => {
                let expected = "memory.limit beside it, as cgroup v2 counts swap alone";
                return Err(Error::invalid("linux.resources.memory.swap", total.to_string(), expected));
            }
        };
        let setting = Setting::new("memory.swap.max", amount(swap));
        // A kernel without swap accounting has nothing to forbid and nothing to free.
        settings.push(if swap <= 0 { setting.or_skip() } else { setting });
    }
    if let Some(limit) = limits.limit {
        settings.push(Setting::new("memory.max", amount(limit)));
    }
    if let Some(reservation) = limits.reservation {
        settings.push(Setting::new("memory.low", amount(reservation)));
    }
    Ok(settings)
}

/// v1 shares (2 to 262,144, 1,024 by default) on the scale of v2 weights (1 to 10,000, 100 by default): the
/// quadratic in the logarithm that meets all three points, as runc and crun have it since 2025.
fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    #[allow(clippy::cast_precision_loss, reason = "shares are below 2^18 here")]
    let log = (shares as f64).log2();
    let weight = 10_f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the curve stays between 1 and 10,000 on this range"
    )]
    let weight = weight as u64;
    weight
}

fn processor(cpu: &LinuxCpu, current: &Current) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    if let Some(shares) = cpu.shares().filter(|&v| v != 0) {
        settings.push(Setting::new("cpu.weight", weight(shares)));
    }
    if let Some(idle) = idle(cpu)? {
        settings.push(Setting::new("cpu.idle", idle));
    }
    let (quota, period) = (cpu.quota().filter(|&v| v != 0), cpu.period().filter(|&v| v != 0));
    if quota.is_some() || period.is_some() {
        let now = current.cpu_max.as_deref().unwrap_or("max 100000").trim();
        let (quota_now, period_now) = now.split_once(' ').unwrap_or((now, "100000"));
        let quota = quota.map_or_else(|| quota_now.to_owned(), amount);
        let period = period.map_or_else(|| period_now.to_owned(), |period| period.to_string());
        settings.push(Setting::new("cpu.max", format!("{quota} {period}")));
    }
    if let Some(burst) = cpu.burst() {
        settings.push(Setting::new("cpu.max.burst", burst));
    }
    if cpu.realtime_runtime().unwrap_or(0) != 0 || cpu.realtime_period().unwrap_or(0) != 0 {
        let value = format!("{}/{}", cpu.realtime_runtime().unwrap_or(0), cpu.realtime_period().unwrap_or(0));
        let expected = "nothing: cgroup v2 has no realtime limits";
        return Err(Error::invalid("linux.resources.cpu.realtimeRuntime/Period", value, expected));
    }
    Ok(settings)
}

fn cpuset(cpu: &LinuxCpu) -> Result<Vec<Setting>> {
    let cpus = cpu_list("cpus", cpu.cpus().as_ref())?.map(|list| Setting::new("cpuset.cpus", list));
    let mems = cpu_list("mems", cpu.mems().as_ref())?.map(|list| Setting::new("cpuset.mems", list));
    Ok(cpus.into_iter().chain(mems).collect())
}

/// The spec's weights (10 to 1,000) on the scale of `io.weight` (1 to 10,000).
fn linear_weight(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

fn io(io: &LinuxBlockIo) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    // BFQ keeps the spec's scale; without it the cost controller's own file is used.
    let either = |prefix: &str, weight: u16| {
        Setting::new("io.bfq.weight", format!("{prefix}{weight}"))
            .or(Setting::new("io.weight", format!("{prefix}{}", linear_weight(weight))))
    };
    if let Some(weight) = io_weight("weight", io.weight())? {
        settings.push(either("", weight));
    }
    for weighted in io.weight_device().iter().flatten() {
        let device = device("weightDevice", weighted.major(), weighted.minor())?;
        if let Some(weight) = io_weight("weightDevice.weight", weighted.weight())? {
            settings.push(either(&format!("{device} "), weight));
        }
    }
    for (field, _, key, devices) in throttles(io) {
        for throttle in devices {
            let device = device(field, throttle.major(), throttle.minor())?;
            // v1 lifts a limit by 0, which v2 refuses.
            let rate = if throttle.rate() == 0 { "max".to_owned() } else { throttle.rate().to_string() };
            settings.push(Setting::new("io.max", format!("{device} {key}={rate}")));
        }
    }
    Ok(settings)
}

fn hugetlb(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let size = page_size(index, limit)?;
        settings.push(Setting::new(format!("hugetlb.{size}.max"), amount(limit.limit())));
        settings.push(Setting::new(format!("hugetlb.{size}.rsvd.max"), amount(limit.limit())).or_skip());
    }
    Ok(settings)
}

/// Files of `linux.resources.unified` that are no settings: they move or kill processes.
const NOT_SETTINGS: [&str; 3] = ["cgroup.procs", "cgroup.threads", "cgroup.kill"];

/// The spec's way past its own fields: file names and texts for the v2 group, in the order of their names. A text
/// of several lines is one write for each. The second half of the pair is the controller's name.
pub(in super::super) fn unified(map: &HashMap<String, String>) -> Result<Vec<(Setting, String)>> {
    let mut settings = Vec::new();
    for (file, text) in map {
        let is_name = file.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let controller = file.split('.').next().unwrap_or_default();
        let has_both = file.len() > controller.len() + 1 && !controller.is_empty();
        if !is_name || !has_both || file.len() > 255 || NOT_SETTINGS.contains(&file.as_str()) {
            let shown: String = file.chars().take(60).collect();
            let expected = "a control file's name, CONTROLLER.SETTING";
            return Err(Error::invalid("linux.resources.unified", format!("{shown:?}"), expected));
        }
        if text.len() > 4096 {
            let field = format!("linux.resources.unified.{file}");
            return Err(Error::invalid(field, format!("{} bytes", text.len()), "at most 4096 bytes"));
        }
        let lines = if text.is_empty() { vec![""] } else { text.lines().collect() };
        for line in lines {
            let setting = Setting { file: file.clone(), value: line.to_owned(), missing: Missing::Fail };
            settings.push((setting, controller.to_owned()));
        }
    }
    // Lines of one file keep their order: the sort is stable.
    settings.sort_by(|a, b| a.0.file.cmp(&b.0.file));
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_meet_runcs_weights() {
        // Minimum, default, maximum, and what runc 1.5 writes for usual requests of Kubernetes.
        for (shares, expected) in [
            (1, 1),
            (2, 1),
            (102, 17),
            (256, 35),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (10_240, 639),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    proptest! {
        #[test]
        fn weights_stay_in_range_and_never_fall(shares in 2_u64..262_144) {
            prop_assert!((1..=10_000).contains(&weight(shares)));
            prop_assert!(weight(shares) <= weight(shares + 1));
        }

        #[test]
        fn io_weights_stay_in_range_and_never_fall(spec in 10_u16..1000) {
            prop_assert!((1..=10_000).contains(&linear_weight(spec)));
            prop_assert!(linear_weight(spec) <= linear_weight(spec + 1));
        }
    }

    #[test]
    fn io_weights_meet_both_ends() {
        assert_eq!((linear_weight(10), linear_weight(1000)), (1, 10_000));
    }
}
