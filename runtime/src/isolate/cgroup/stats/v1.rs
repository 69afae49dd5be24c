//! Statistics of v1 groups.

use std::path::Path;

use super::{Blkio, BlkioEntry, Cpuset, Hugetlb, MemoryEntry, Stats, number, page_sizes, pairs};
use crate::Result;
use crate::isolate::cgroup::files;

/// Nanoseconds in a tick of USER_HZ, which is 100 everywhere.
const TICK: u64 = 10_000_000;

/// Adds what the controllers that `has` names know of the group in `dir`.
pub(super) fn read(dir: &Path, has: impl Fn(&str) -> bool, stats: &mut Stats) -> Result<()> {
    if has("cpu") {
        throttling(dir, stats)?;
    }
    if has("cpuacct") {
        cpuacct(dir, stats)?;
    }
    if has("cpuset") {
        stats.cpuset = cpuset(dir)?;
    }
    if has("memory") {
        memory(dir, stats)?;
    }
    if has("pids")
        && let Some(current) = number(dir, "pids.current")?
    {
        stats.pids.current = current;
        stats.pids.limit = number(dir, "pids.max")?.filter(|&max| max != u64::MAX).unwrap_or(0);
    }
    if has("blkio") {
        let psi = stats.blkio.psi.take();
        stats.blkio = Blkio { psi, ..blkio(dir)? };
    }
    if has("hugetlb") {
        for size in page_sizes() {
            hugetlb(dir, size, stats)?;
        }
    }
    Ok(())
}

fn throttling(dir: &Path, stats: &mut Stats) -> Result<()> {
    let text = files::read_if_there(dir, "cpu.stat")?.unwrap_or_default();
    for (key, value) in pairs(&text) {
        match key {
            "nr_periods" => stats.cpu.throttling.periods = value,
            "nr_throttled" => stats.cpu.throttling.throttled_periods = value,
            "throttled_time" => stats.cpu.throttling.throttled_time = value,
            _ => {}
        }
    }
    Ok(())
}

fn cpuacct(dir: &Path, stats: &mut Stats) -> Result<()> {
    let usage = &mut stats.cpu.usage;
    usage.total = number(dir, "cpuacct.usage")?.unwrap_or(0);
    let text = files::read_if_there(dir, "cpuacct.stat")?.unwrap_or_default();
    for (key, ticks) in pairs(&text) {
        match key {
            "user" => usage.user = ticks.saturating_mul(TICK),
            "system" => usage.kernel = ticks.saturating_mul(TICK),
            _ => {}
        }
    }
    let text = files::read_if_there(dir, "cpuacct.usage_percpu")?.unwrap_or_default();
    usage.percpu = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // Lines of "cpu user system", below a heading.
    let text = files::read_if_there(dir, "cpuacct.usage_all")?.unwrap_or_default();
    let rows = text.lines().skip(1).filter_map(|line| {
        let mut numbers = line.split_whitespace().skip(1).map(str::parse::<u64>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    (usage.percpu_user, usage.percpu_kernel) = rows.unzip();
    Ok(())
}

fn cpuset(dir: &Path) -> Result<Cpuset> {
    let list = |file: &str| -> Result<Vec<u16>> {
        Ok(files::read_if_there(dir, file)?.map(|text| parse_list(text.trim())).unwrap_or_default())
    };
    let flag = |file: &str| -> Result<u64> { Ok(number(dir, file)?.unwrap_or(0)) };
    let level = files::read_if_there(dir, "cpuset.sched_relax_domain_level")?;
    Ok(Cpuset {
        cpus: list("cpuset.cpus")?,
        cpu_exclusive: flag("cpuset.cpu_exclusive")?,
        mems: list("cpuset.mems")?,
        mem_hardwall: flag("cpuset.mem_hardwall")?,
        mem_exclusive: flag("cpuset.mem_exclusive")?,
        memory_migrate: flag("cpuset.memory_migrate")?,
        memory_spread_page: flag("cpuset.memory_spread_page")?,
        memory_spread_slab: flag("cpuset.memory_spread_slab")?,
        memory_pressure: flag("cpuset.memory_pressure")?,
        sched_load_balance: flag("cpuset.sched_load_balance")?,
        sched_relax_domain_level: level.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
    })
}

/// `0-2,5` as the numbers that it names.
pub(super) fn parse_list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

fn memory(dir: &Path, stats: &mut Stats) -> Result<()> {
    let text = files::read_if_there(dir, "memory.stat")?.unwrap_or_default();
    stats.memory.raw = pairs(&text).map(|(key, value)| (key.to_owned(), value)).collect();
    stats.memory.cache = stats.memory.raw.get("cache").copied().unwrap_or(0);
    let entry = |prefix: &str| -> Result<MemoryEntry> {
        let value =
            |name: &str| -> Result<u64> { Ok(number(dir, &format!("{prefix}.{name}"))?.unwrap_or(0)) };
        Ok(MemoryEntry {
            limit: value("limit_in_bytes")?,
            usage: value("usage_in_bytes")?,
            max: value("max_usage_in_bytes")?,
            failcnt: value("failcnt")?,
        })
    };
    stats.memory.usage = entry("memory")?;
    stats.memory.swap = entry("memory.memsw")?;
    stats.memory.kernel = entry("memory.kmem")?;
    stats.memory.kernel_tcp = entry("memory.kmem.tcp")?;
    Ok(())
}

type Lists = [(&'static str, fn(&mut Blkio) -> &mut Vec<BlkioEntry>)];

const ALL_LISTS: &Lists = &[
    ("sectors_recursive", |blkio| &mut blkio.sectors_recursive),
    ("io_service_time_recursive", |blkio| &mut blkio.io_service_time_recursive),
    ("io_wait_time_recursive", |blkio| &mut blkio.io_wait_time_recursive),
    ("io_merged_recursive", |blkio| &mut blkio.io_merged_recursive),
    ("io_queued_recursive", |blkio| &mut blkio.io_queue_recursive),
    ("time_recursive", |blkio| &mut blkio.io_time_recursive),
    ("io_serviced_recursive", |blkio| &mut blkio.io_serviced_recursive),
    ("io_service_bytes_recursive", |blkio| &mut blkio.io_service_bytes_recursive),
];

const BASIC_LISTS: &Lists = &[
    ("io_serviced", |blkio| &mut blkio.io_serviced_recursive),
    ("io_service_bytes", |blkio| &mut blkio.io_service_bytes_recursive),
];

/// Which files have anything depends on the kernel's age and I/O scheduler: the first set that does is taken.
fn blkio(dir: &Path) -> Result<Blkio> {
    let sets: [(&str, &Lists); 5] = [
        ("blkio.bfq.", ALL_LISTS),
        ("blkio.bfq.", &ALL_LISTS[6..]),
        ("blkio.", ALL_LISTS),
        ("blkio.throttle.", &ALL_LISTS[6..]),
        ("blkio.throttle.", BASIC_LISTS),
    ];
    for (prefix, lists) in sets {
        let mut blkio = Blkio::default();
        for (index, (name, list)) in lists.iter().enumerate() {
            let text = files::read_if_there(dir, &format!("{prefix}{name}"))?.unwrap_or_default();
            let entries = parse_entries(&text);
            if index == 0 && entries.is_empty() {
                break;
            }
            *list(&mut blkio) = entries;
        }
        if blkio != Blkio::default() {
            return Ok(blkio);
        }
    }
    Ok(Blkio::default())
}

/// Lines of `8:0 Read 124` or `8:0 124`; the total at the end is left out.
pub(super) fn parse_entries(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let (first, second) = (words.next()?, words.next());
        let (op, value) = second.map_or(("", first), |value| (first, value));
        Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

fn hugetlb(dir: &Path, size: String, stats: &mut Stats) -> Result<()> {
    for prefix in [format!("hugetlb.{size}.rsvd"), format!("hugetlb.{size}")] {
        let Some(usage) = number(dir, &format!("{prefix}.usage_in_bytes"))? else { continue };
        let max = number(dir, &format!("{prefix}.max_usage_in_bytes"))?.unwrap_or(0);
        let failcnt = number(dir, &format!("{prefix}.failcnt"))?.unwrap_or(0);
        stats.hugetlb.insert(size, Hugetlb { usage, max, failcnt });
        break;
    }
    Ok(())
}
