//! Statistics of a v2 group.

use std::path::Path;

use super::{BlkioEntry, Hugetlb, MemoryEntry, Psi, PsiData, Stats, number, page_sizes, pairs};
use crate::Result;
use crate::isolate::cgroup::files;

pub(super) fn read(dir: &Path, stats: &mut Stats) -> Result<()> {
    let text = |file: &str| files::read_if_there(dir, file);
    if let Some(text) = text("cpu.stat")? {
        cpu(&text, stats);
    }
    if let Some(text) = text("memory.stat")? {
        stats.memory.raw = pairs(&text).map(|(key, value)| (key.to_owned(), value)).collect();
        stats.memory.cache = stats.memory.raw.get("file").copied().unwrap_or(0);
        memory(dir, stats)?;
    }
    if let Some(current) = number(dir, "pids.current")? {
        stats.pids.current = current;
        stats.pids.limit = number(dir, "pids.max")?.filter(|&max| max != u64::MAX).unwrap_or(0);
    }
    if let Some(text) = text("io.stat")? {
        io(&text, stats);
    }
    for size in page_sizes() {
        hugetlb(dir, size, stats)?;
    }
    stats.cpu.psi = pressure(dir, "cpu.pressure")?;
    stats.memory.psi = pressure(dir, "memory.pressure")?;
    stats.blkio.psi = pressure(dir, "io.pressure")?;
    Ok(())
}

fn cpu(text: &str, stats: &mut Stats) {
    for (key, value) in pairs(text) {
        let nanoseconds = value.saturating_mul(1000);
        match key {
            "usage_usec" => stats.cpu.usage.total = nanoseconds,
            "user_usec" => stats.cpu.usage.user = nanoseconds,
            "system_usec" => stats.cpu.usage.kernel = nanoseconds,
            "nr_periods" => stats.cpu.throttling.periods = value,
            "nr_throttled" => stats.cpu.throttling.throttled_periods = value,
            "throttled_usec" => stats.cpu.throttling.throttled_time = nanoseconds,
            _ => {}
        }
    }
}

fn memory(dir: &Path, stats: &mut Stats) -> Result<()> {
    let entry = |prefix: &str| -> Result<Option<MemoryEntry>> {
        let Some(usage) = number(dir, &format!("{prefix}.current"))? else { return Ok(None) };
        let limit = number(dir, &format!("{prefix}.max"))?.unwrap_or(u64::MAX);
        // There since Linux 5.19, for swap since 6.5.
        let max = number(dir, &format!("{prefix}.peak"))?.unwrap_or(0);
        Ok(Some(MemoryEntry { limit, usage, max, failcnt: 0 }))
    };
    stats.memory.usage = entry("memory")?.unwrap_or_default();
    // Tools expect both together, as v1 counts; a peak of both together is not known.
    let swap = entry("memory.swap")?.unwrap_or_default();
    stats.memory.swap = MemoryEntry {
        limit: swap.limit.saturating_add(stats.memory.usage.limit),
        usage: swap.usage.saturating_add(stats.memory.usage.usage),
        max: 0,
        failcnt: 0,
    };
    Ok(())
}

fn io(text: &str, stats: &mut Stats) {
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|word| word.split_once(':'));
        let Some((Ok(major), Ok(minor))) = device.map(|(a, b)| (a.parse(), b.parse())) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut stats.blkio.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut stats.blkio.io_service_bytes_recursive, "Write"),
                "rios" => (&mut stats.blkio.io_serviced_recursive, "Read"),
                "wios" => (&mut stats.blkio.io_serviced_recursive, "Write"),
                _ => continue,
            };
            let Ok(value) = value.parse() else { continue };
            list.push(BlkioEntry { major, minor, op: op.to_owned(), value });
        }
    }
}

fn hugetlb(dir: &Path, size: String, stats: &mut Stats) -> Result<()> {
    let reserved = number(dir, &format!("hugetlb.{size}.rsvd.current"))?;
    let usage = if reserved.is_some() { reserved } else { number(dir, &format!("hugetlb.{size}.current"))? };
    if let Some(usage) = usage {
        let events = files::read_if_there(dir, &format!("hugetlb.{size}.events"))?;
        let failcnt = events.and_then(|text| files::value_of(&text, "max")).unwrap_or(0);
        stats.hugetlb.insert(size, Hugetlb { usage, max: 0, failcnt });
    }
    Ok(())
}

/// Nothing where the kernel has no such file or was told not to count.
fn pressure(dir: &Path, file: &str) -> Result<Option<Psi>> {
    match files::read(&dir.join(file)) {
        Ok(text) => Ok(Some(parse_pressure(&text))),
        Err(error) if files::is_gone(&error) || error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(crate::Error::path("read", dir.join(file))(error)),
    }
}

pub(super) fn parse_pressure(text: &str) -> Psi {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let data = match words.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        let value =
            |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let average = |key: &str| value(key).and_then(|text| text.parse().ok()).unwrap_or(0.0);
        *data = PsiData {
            avg10: average("avg10"),
            avg60: average("avg60"),
            avg300: average("avg300"),
            total: value("total").and_then(|text| text.parse().ok()).unwrap_or(0),
        };
    }
    psi
}
