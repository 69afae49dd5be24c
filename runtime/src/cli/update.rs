use std::io::Read;
use std::path::Path;

use clap::{Arg, ArgMatches, Command};
use hearth_rootfs::json;
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value};

use super::{Global, id_arg};
use crate::bundle::load;
use crate::container::update;
use crate::observe::log;
use crate::{Error, Result};

/// More than any description of limits needs.
const LIMIT: u64 = 1 << 20;

enum Kind {
    Unsigned,
    Signed,
    /// With a unit, or -1.
    Bytes,
    Text,
}

/// A flag and the field of `linux.resources` that it stands for.
struct Flag {
    name: &'static str,
    field: [&'static str; 2],
    kind: Kind,
    help: &'static str,
}

const fn limit(name: &'static str, field: [&'static str; 2], kind: Kind, help: &'static str) -> Flag {
    Flag { name, field, kind, help }
}

const FLAGS: [Flag; 14] = [
    limit("blkio-weight", ["blockIO", "weight"], Kind::Unsigned, "Share of block I/O, 10 to 1000"),
    limit("cpu-period", ["cpu", "period"], Kind::Unsigned, "Period of the CPU quota, in microseconds"),
    limit("cpu-quota", ["cpu", "quota"], Kind::Signed, "CPU time in a period, in microseconds; -1: no limit"),
    limit("cpu-burst", ["cpu", "burst"], Kind::Unsigned, "CPU time that may be saved up, in microseconds"),
    limit("cpu-share", ["cpu", "shares"], Kind::Unsigned, "Share of CPU time beside other containers"),
    limit(
        "cpu-rt-period",
        ["cpu", "realtimePeriod"],
        Kind::Unsigned,
        "Period of real-time tasks, in microseconds",
    ),
    limit("cpu-rt-runtime", ["cpu", "realtimeRuntime"], Kind::Signed, "Real-time CPU time in such a period"),
    limit("cpuset-cpus", ["cpu", "cpus"], Kind::Text, "CPUs to run on, as 0-3,7"),
    limit("cpuset-mems", ["cpu", "mems"], Kind::Text, "NUMA nodes to have memory from, as 0-1"),
    limit("cpu-idle", ["cpu", "idle"], Kind::Signed, "1: run only when nothing else wants to"),
    limit("memory", ["memory", "limit"], Kind::Bytes, "Memory, as 512M; -1: no limit"),
    limit(
        "memory-reservation",
        ["memory", "reservation"],
        Kind::Bytes,
        "Memory that is kept when it gets scarce",
    ),
    limit("memory-swap", ["memory", "swap"], Kind::Bytes, "Memory and swap together; -1: no limit"),
    limit("pids-limit", ["pids", "limit"], Kind::Signed, "Number of processes and threads; -1: no limit"),
];

/// Kernels since 5.4 have no such limits.
const IGNORED: [&str; 2] = ["kernel-memory", "kernel-memory-tcp"];

const RDT: [(&str, &str); 2] = [
    ("l3-cache-schema", "Intel RDT/CAT: l3 cache schema is not enabled"),
    ("mem-bw-schema", "Intel RDT/MBA: memory bandwidth schema is not enabled"),
];

pub(super) fn define(command: Command) -> Command {
    let value =
        |name: &'static str| Arg::new(name).long(name).value_name("VALUE").allow_negative_numbers(true);
    command
        .about("Change the limits of a container")
        .arg(Arg::new("resources").long("resources").short('r').value_name("FILE").help(
            "Read `linux.resources` as JSON from FILE, or - for standard input; flags are ignored then",
        ))
        .args(FLAGS.iter().map(|flag| value(flag.name).help(flag.help)))
        .args(IGNORED.iter().map(|name| value(name).hide(true)))
        .args(RDT.iter().map(|(name, _)| value(name).help("Intel RDT, which is not supported yet")))
        .arg(id_arg())
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    let mut container = global.container(args)?;
    let text = |name: &str| args.get_one::<String>(name).map(String::as_str).filter(|text| !text.is_empty());
    if let Some((name, reason)) = RDT.iter().find(|(name, _)| text(name).is_some()) {
        return Err(Error::invalid(format!("--{name}"), *reason, "a host and a runtime with resctrl"));
    }
    if IGNORED.iter().any(|name| text(name).is_some()) {
        log::warn("Kernel memory settings are ignored and will be removed");
    }
    let resources = match text("resources") {
        Some(file) => from_json(&read(file)?)?,
        None => from_flags(text)?,
    };
    update::update(&mut container, resources).map(|()| 0)
}

fn read(file: &str) -> Result<Vec<u8>> {
    if file != "-" {
        return load::read(Path::new(file));
    }
    let mut text = Vec::new();
    let read = std::io::stdin().take(LIMIT).read_to_end(&mut text);
    read.map_err(Error::sys("read standard input"))?;
    Ok(text)
}

fn from_json(text: &[u8]) -> Result<LinuxResources> {
    let failed = |source| Error::Json { what: "the resources".into(), source };
    let mut value: Value = serde_json::from_slice(text).map_err(failed)?;
    // An absent limit is none at all, while 0 is one.
    let Some(fields) = value.as_object_mut() else {
        return Err(Error::invalid("the resources", "JSON of another kind", "an object"));
    };
    if fields.get("pids").is_some_and(|pids| pids["limit"].is_null()) {
        fields.remove("pids");
    }
    json::from_value(&value).map_err(failed)
}

fn from_flags<'a>(text: impl Fn(&str) -> Option<&'a str>) -> Result<LinuxResources> {
    let mut fields = Map::new();
    for Flag { name, field: [group, field], kind, .. } in &FLAGS {
        let Some(text) = text(name) else { continue };
        let expected = match kind {
            Kind::Unsigned => "a whole number from 0",
            Kind::Signed => "a whole number",
            Kind::Bytes => "a number of bytes with a unit of b, k, m, g, t, p or none, or -1",
            Kind::Text => "",
        };
        let value = match kind {
            Kind::Unsigned => text.parse::<u64>().ok().map(Value::from),
            Kind::Signed => text.parse::<i64>().ok().map(Value::from),
            Kind::Bytes if text == "-1" => Some(Value::from(-1)),
            Kind::Bytes => bytes(text).map(Value::from),
            Kind::Text => Some(Value::from(text)),
        };
        let value = value.ok_or_else(|| {
            Error::invalid(format!("invalid value for {name}"), format!("{text:?}"), expected)
        })?;
        let group = fields.entry(*group).or_insert_with(|| Value::Object(Map::new()));
        group[*field] = value;
    }
    json::from_value(&Value::Object(fields))
        .map_err(|source| Error::Json { what: "the limits".into(), source })
}

/// `512m`, `1.5 GiB`, `100`: the units are powers of 1024, whatever their case and spelling.
pub(super) fn bytes(text: &str) -> Option<i64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let letter = match unit.as_str() {
        "" | "b" => "",
        unit => unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(unit),
    };
    let power = if letter.is_empty() {
        if unit.len() > 1 {
            return None;
        }
        0
    } else {
        ["k", "m", "g", "t", "p"].iter().position(|name| *name == letter)? + 1
    };
    let factor = 1_u128 << (10 * power);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    if number.len() == number.matches('.').count() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let value = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    i64::try_from(value(whole)? * factor + value(fraction)? * factor / scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_well_defined() {
        define(Command::new("update")).debug_assert();
    }

    #[test]
    fn sizes_are_read_as_runc_reads_them() {
        let rows = [
            ("100", 100),
            ("32b", 32),
            ("1k", 1024),
            ("1K", 1024),
            ("2kb", 2048),
            ("3KiB", 3072),
            ("64 m", 64 << 20),
            ("1.5g", 3 << 29),
            (".5k", 512),
            ("1t", 1 << 40),
            ("1P", 1 << 50),
        ];
        for (text, expected) in rows {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in
            ["", ".", "k", "-5", "1x", "1kk", "1bb", "1ib", "1.2.3", "1e3", "9999999999999999999", "9999999p"]
        {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn flags_become_the_fields_of_the_spec() {
        let given = [("memory", "64m"), ("cpu-quota", "-1"), ("cpuset-cpus", "0-1"), ("pids-limit", "0")];
        let resources = from_flags(|name| given.iter().find(|row| row.0 == name).map(|row| row.1)).unwrap();
        let memory = resources.memory().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), None));
        let cpu = resources.cpu().clone().unwrap();
        assert_eq!((cpu.quota(), cpu.shares(), cpu.cpus().as_deref()), (Some(-1), None, Some("0-1")));
        assert_eq!(resources.pids().unwrap().limit(), 0);
        assert!(resources.block_io().is_none());
    }

    #[test]
    fn every_flag_names_a_field_that_exists() {
        let all = from_flags(|_| Some("1")).unwrap();
        let value = serde_json::to_value(all).unwrap();
        for flag in &FLAGS {
            assert!(!value[flag.field[0]][flag.field[1]].is_null(), "{}", flag.name);
        }
    }

    #[test]
    fn a_wrong_value_names_its_flag() {
        for (name, text) in
            [("cpu-period", "-1"), ("memory", "much"), ("cpu-quota", "1.5"), ("pids-limit", "x")]
        {
            let error = from_flags(|asked| (asked == name).then_some(text)).unwrap_err().to_string();
            assert!(error.contains(&format!("invalid value for {name}")), "{error}");
        }
        assert!(from_flags(|name| (name == "blkio-weight").then_some("70000")).is_err());
    }

    #[test]
    fn an_empty_pids_is_no_limit_of_zero() {
        assert!(from_json(br#"{"pids": {}}"#).unwrap().pids().is_none());
        assert!(from_json(br#"{"pids": {"limit": null}}"#).unwrap().pids().is_none());
        assert_eq!(from_json(br#"{"pids": {"limit": 0}}"#).unwrap().pids().unwrap().limit(), 0);
    }
}
