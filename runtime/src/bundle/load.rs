//! Reads config.json, bounded, and normalises what oci-spec's closed enums would reject but runc only warns about.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hearth_rootfs::json;
use oci_spec::runtime::Capability;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::locate;
use super::spec::{Process, Spec};
use crate::{Error, Result};

/// No real config comes near it; Docker's, with its seccomp profile, has 20 KiB.
const LIMIT: u64 = 16 << 20;

/// A bundle as it was found on disk.
#[derive(Debug)]
pub struct Bundle {
    /// Absolute.
    pub dir: PathBuf,
    /// config.json to the letter: it is stored with the container, since the spec lets the file change later.
    pub text: Vec<u8>,
    pub spec: Spec,
    /// What was ignored, one line each.
    pub warnings: Vec<String>,
}

pub fn bundle(dir: &Path) -> Result<Bundle> {
    let (dir, text) = text(dir)?;
    understand(dir, text)
}

/// The bundle's absolute path, and its config to the letter.
pub fn text(dir: &Path) -> Result<(PathBuf, Vec<u8>)> {
    let dir = std::path::absolute(dir).map_err(Error::path("resolve", dir))?;
    let text = read(&dir.join("config.json"))?;
    Ok((dir, text))
}

pub fn understand(dir: PathBuf, text: Vec<u8>) -> Result<Bundle> {
    let (mut spec, warnings) = parse(&text, "config.json")?;
    drop_unlimited_pids(&mut spec, &text);
    if spec.linux().is_none() {
        // oci-spec's own default is a container's usual Linux section; the spec's is none of it.
        let empty = json::from_value(&Value::Object(Map::new()));
        *spec.linux_mut() = Some(empty.map_err(|source| Error::Json { what: "linux".into(), source })?);
    }
    Ok(Bundle { dir, text, spec, warnings })
}

/// oci-spec reads `"pids": {}` as the limit 0, which is one process; it means no limit.
fn drop_unlimited_pids(spec: &mut Spec, text: &[u8]) {
    let resources = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut());
    let Some(resources) = resources.filter(|r| r.pids().is_some_and(|pids| pids.limit() == 0)) else {
        return;
    };
    let value: Value = serde_json::from_slice(text).unwrap_or_default();
    if !value["linux"]["resources"]["pids"]["limit"].is_number() {
        resources.set_pids(None);
    }
}

/// The process of `exec --process FILE`.
pub fn process(path: &Path) -> Result<(Process, Vec<String>)> {
    parse(&read(path)?, "process")
}

/// Reads a whole file that should be JSON, up to the limit.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(Error::path("open", path))?;
    let mut text = Vec::with_capacity(8 << 10);
    file.take(LIMIT + 1).read_to_end(&mut text).map_err(Error::path("read", path))?;
    if text.len() as u64 > LIMIT {
        return Err(Error::path("read", path)(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "larger than 16 MiB",
        )));
    }
    Ok(text)
}

/// The common case costs one pass. Only where that fails is the document normalised and tried again.
pub fn parse<T: DeserializeOwned>(text: &[u8], what: &str) -> Result<(T, Vec<String>)> {
    let first = match serde_json::from_slice(text) {
        Ok(value) => return Ok((value, Vec::new())),
        Err(error) => error,
    };
    if first.is_syntax() || first.is_eof() {
        return Err(Error::Json { what: what.into(), source: first });
    }
    let mut value: Value =
        serde_json::from_slice(text).map_err(|source| Error::Json { what: what.into(), source })?;
    let mut warnings = Vec::new();
    normalise(&mut value, &mut warnings);
    json::from_value(&value).map(|value| (value, warnings)).map_err(|_| {
        // The first error is the one that knows where.
        let field = in_runc_words(locate::path(text, first.line(), first.column()));
        Error::Json { what: format!("{what}: {field}"), source: first }
    })
}

/// Some tools match on how runc names these.
fn in_runc_words(field: String) -> String {
    match field.strip_prefix("linux.memoryPolicy") {
        Some(part) if part.starts_with(".flags") => format!("{field}: invalid memory policy flag"),
        Some(_) => format!("{field}: invalid memory policy mode"),
        None => field,
    }
}

/// What oci-spec is stricter in than runc: unknown capabilities (runc warns), null where it wants a list, the spec's
/// names of scheduler flags, and sections that ask for nothing.
fn normalise(value: &mut Value, warnings: &mut Vec<String>) {
    json::drop_nulls(value);
    if let Some(linux) = value.get_mut("linux") {
        normalise_linux(linux);
    }
    let process = if value.get("process").is_some() { &mut value["process"] } else { value };
    normalise_process(process);
    if let Some(Value::Object(sets)) = process.get_mut("capabilities") {
        for names in sets.values_mut().filter_map(Value::as_array_mut) {
            names.retain(|name| known_capability(name, warnings));
        }
    }
}

fn normalise_process(process: &mut Value) {
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        let other = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = other.into();
    }
}

fn normalise_linux(linux: &mut Value) {
    let rules = linux.pointer_mut("/resources/devices").and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten().filter_map(Value::as_object_mut) {
        if rule.get("type").is_some_and(|kind| kind == "") {
            rule.remove("type");
        }
    }
    // A profile without a default action and without rules is none.
    let says_nothing = |profile: &Value| {
        let rules = profile["syscalls"].as_array().map_or(0, Vec::len);
        profile["defaultAction"].as_str().unwrap_or_default().is_empty() && rules == 0
    };
    if let Some(linux) = linux.as_object_mut()
        && linux.get("seccomp").is_some_and(says_nothing)
    {
        linux.remove("seccomp");
    }
}

fn known_capability(name: &Value, warnings: &mut Vec<String>) -> bool {
    let Some(text) = name.as_str() else { return true };
    let known = json::from_value::<Capability>(name).is_ok();
    let warning = format!("ignoring unknown capability {text}");
    if !known && !warnings.contains(&warning) {
        warnings.push(warning);
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_capability_is_a_warning() {
        let text = br#"{"ociVersion":"1.0.2","process":{"user":{},"cwd":"/","args":["a"],
            "capabilities":{"bounding":["CAP_KILL","CAP_FUTURE"]}}}"#;
        let (spec, warnings) = parse::<Spec>(text, "config.json").unwrap();
        let process = spec.process().clone().unwrap();
        assert_eq!(process.capabilities().clone().unwrap().bounding().clone().unwrap().len(), 1);
        assert_eq!(warnings, ["ignoring unknown capability CAP_FUTURE"]);
    }

    #[test]
    fn what_the_spec_names_otherwise_is_understood() {
        let text = br#"{"ociVersion": "1.3.0", "process": {"args": ["a"], "cwd": "/",
            "scheduler": {"policy": "SCHED_DEADLINE",
                "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_RECLAIM"]}},
            "linux": {"seccomp": {}, "resources": {"devices": [{"allow": false, "type": "", "access": "rwm"}]}}}"#;
        let (spec, warnings) = parse::<Spec>(text, "config.json").unwrap();
        let process = spec.process().clone().unwrap();
        assert_eq!(process.scheduler().clone().unwrap().flags().clone().unwrap().len(), 3);
        assert!(spec.linux().clone().unwrap().seccomp().is_none() && warnings.is_empty());
    }

    #[test]
    fn a_wrong_type_names_its_field() {
        let error = parse::<Spec>(b"{\"ociVersion\":\n 7}", "config.json").unwrap_err();
        let line = error.chain();
        assert!(line.starts_with("parse config.json: ociVersion: "), "{line}");
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = parse::<Spec>(&text, "config.json");
        }
    }
}
