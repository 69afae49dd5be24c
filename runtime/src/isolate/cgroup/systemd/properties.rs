//! From values of control files to properties of a unit. Pure. systemd writes its own idea of each of these files
//! whenever it likes (a `daemon-reload` is enough), so whatever it has a property for it must be told of. What it has
//! none for it leaves alone.

use super::super::limits::{Missing, Setting};
use super::wire::Value;
use super::{Property, property};

/// No kernel has more processors or memory nodes; a list may name a large number by a few signs.
const MAX_IN_LIST: usize = 8192;

pub(super) fn of(setting: &Setting) -> Vec<Property> {
    let value = setting.value.trim();
    let name = match setting.file.as_str() {
        "memory.max" => "MemoryMax",
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        "cpu.weight" => "CPUWeight",
        // Zero is the word "idle". Not to be idle is what any other weight says.
        "cpu.idle" if value == "1" => return vec![property("CPUWeight", Value::U64(0))],
        "cpu.max" => return quota(value).unwrap_or_default(),
        "cpuset.cpus" => return list("AllowedCPUs", value),
        "cpuset.mems" => return list("AllowedMemoryNodes", value),
        "io.weight" => {
            let weight = value.strip_prefix("default ").unwrap_or(value).parse();
            return weight.map(|weight| property("IOWeight", Value::U64(weight))).into_iter().collect();
        }
        _ => {
            return match &setting.missing {
                Missing::Instead(other) => of(other),
                _ => Vec::new(),
            };
        }
    };
    // What is no number the kernel will refuse.
    amount(value).map(|value| property(name, Value::U64(value))).into_iter().collect()
}

/// As the kernel reads it: `max`, or a number with a suffix.
fn amount(text: &str) -> Option<u64> {
    if text == "max" {
        return Some(u64::MAX);
    }
    let (digits, suffix) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match suffix.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        "e" => 60,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// `QUOTA PERIOD` in microseconds; systemd counts the quota by the second, and keeps whole percents of it: rounded up,
/// lest it be less than what was asked for.
fn quota(text: &str) -> Option<Vec<Property>> {
    const PERCENT: u64 = 10_000;
    let (quota, period) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let mut properties = Vec::new();
    let period = match period.trim() {
        "" => 100_000,
        period => {
            let period = period.parse::<u64>().ok().filter(|&period| period > 0)?;
            properties.push(property("CPUQuotaPeriodUSec", Value::U64(period)));
            period
        }
    };
    let by_second = match quota {
        "max" => u64::MAX,
        quota => (quota.parse::<u64>().ok()?.checked_mul(1_000_000)? / period).next_multiple_of(PERCENT),
    };
    properties.push(property("CPUQuotaPerSecUSec", Value::U64(by_second)));
    Some(properties)
}

fn list(name: &str, text: &str) -> Vec<Property> {
    let bytes = bitmap(text).map(|bytes| bytes.into_iter().map(Value::Byte).collect());
    bytes.map(|bytes| property(name, Value::Array("y".into(), bytes))).into_iter().collect()
}

/// A list as `0-3,7` or `0-31:2/8`, as a bit for each number, the lowest first.
fn bitmap(text: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (range, stride) =
            part.split_once(':').map_or((part, None), |(range, stride)| (range, Some(stride)));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        let (used, group) = match stride.map(|stride| stride.split_once('/')) {
            None => (1, 1),
            Some(stride) => {
                stride.and_then(|(used, group)| Some((used.parse().ok()?, group.parse().ok()?)))?
            }
        };
        if last >= MAX_IN_LIST || first > last || used > group || group == 0 {
            return None;
        }
        for number in (first..=last).filter(|number| (number - first) % group < used) {
            bits.resize(bits.len().max(number / 8 + 1), 0_u8);
            bits[number / 8] |= 1 << (number % 8);
        }
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxResources;
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::super::limits::{self, Controller, Current};
    use super::*;

    fn setting(file: &str, value: &str) -> Setting {
        Setting { file: file.into(), value: value.into(), missing: Missing::Fail }
    }

    fn number(name: &str, value: u64) -> Property {
        property(name, Value::U64(value))
    }

    #[test]
    fn every_file_that_systemd_writes_has_its_property() {
        for (file, value, expected) in [
            ("memory.max", "max", number("MemoryMax", u64::MAX)),
            ("memory.max", "33554432", number("MemoryMax", 32 << 20)),
            ("memory.high", "30M", number("MemoryHigh", 30 << 20)),
            ("memory.low", "1k", number("MemoryLow", 1024)),
            ("memory.min", "0", number("MemoryMin", 0)),
            ("memory.swap.max", "0", number("MemorySwapMax", 0)),
            ("pids.max", "20", number("TasksMax", 20)),
            ("cpu.weight", "59", number("CPUWeight", 59)),
            ("cpu.idle", "1", number("CPUWeight", 0)),
            ("io.weight", "default 200", number("IOWeight", 200)),
        ] {
            assert_eq!(of(&setting(file, value)), [expected], "{file} {value}");
        }
        for (file, value) in [
            ("hugetlb.2MB.max", "0"),
            ("cpu.idle", "0"),
            ("memory.max", "much"),
            ("memory.max", "99999999999999999999"),
            ("cpu.max", "x"),
            ("cpu.max", "5 0"),
            ("io.weight", "8:0 5"),
            ("cpuset.cpus", "0-99999999"),
        ] {
            assert_eq!(of(&setting(file, value)), [], "{file} {value}");
        }
    }

    #[test]
    fn a_quota_is_told_by_the_second_in_whole_percents() {
        let both =
            |quota, period| vec![number("CPUQuotaPeriodUSec", period), number("CPUQuotaPerSecUSec", quota)];
        for (text, expected) in [
            ("20000 50000", both(400_000, 50_000)),
            ("max 100000", both(u64::MAX, 100_000)),
            ("33333 100000", both(340_000, 100_000)),
            ("1 1000000", both(10_000, 1_000_000)),
        ] {
            assert_eq!(of(&setting("cpu.max", text)), expected, "{text}");
        }
        assert_eq!(of(&setting("cpu.max", "5000")), [number("CPUQuotaPerSecUSec", 50_000)]);
    }

    #[test]
    fn lists_are_bitmaps() {
        for (text, bits) in [
            ("0", vec![1]),
            ("0-3,7", vec![0b1000_1111]),
            ("9", vec![0, 2]),
            ("0-8:2/4", vec![0b0011_0011, 1]),
            ("", vec![]),
        ] {
            assert_eq!(bitmap(text), Some(bits), "{text}");
        }
        for text in ["3-1", "a", "1-", "0:1", "0:2/1", "0-1:1/0", "8192"] {
            assert_eq!(bitmap(text), None, "{text}");
        }
    }

    /// The file that is asked for first is one that systemd does not know, the other one it does.
    #[test]
    fn weights_of_disks_are_told() {
        let resources: LinuxResources =
            serde_json::from_value(json!({ "blockIO": { "weight": 10 } })).unwrap();
        let settings = limits::v2(Controller::Blkio, &resources, &Current::default()).unwrap();
        let properties: Vec<_> = settings.iter().flat_map(of).collect();
        assert_eq!(properties, [number("IOWeight", 1)]);
    }

    proptest! {
        #[test]
        fn no_value_panics(file in "cpu.max|cpuset.cpus|memory.max|io.weight", value in "[0-9a-z,:/ -]{0,24}") {
            of(&setting(&file, &value));
        }
    }
}
