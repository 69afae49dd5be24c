//! One function per rule of the spec. Each error names the field, the value and what was expected.

use std::collections::HashSet;
use std::path::Path;

use oci_spec::runtime::{Hook, Linux, LinuxNamespaceType as Ns};

use super::mount_options;
use super::spec::{Process, Spec};
use crate::{Error, Result};

/// The longest container id that is accepted.
const ID_LIMIT: usize = 1024;

/// `[a-zA-Z0-9_+-][a-zA-Z0-9_+.-]*`: it becomes a directory and a cgroup, and is given back on command lines.
pub fn id(id: &str) -> Result<()> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"_+-".contains(&c);
    let well_formed = id.bytes().enumerate().all(|(at, c)| plain(c) || (at > 0 && c == b'.'));
    if id.is_empty() || id.len() > ID_LIMIT || !well_formed {
        let shown: String = id.chars().take(80).collect();
        return Err(Error::invalid(
            "container id",
            format!("invalid container ID format: {shown:?}"),
            "1 to 1024 of letters, digits, '_', '+', '-' and '.', not starting with '.'",
        ));
    }
    Ok(())
}

pub fn spec(spec: &Spec) -> Result<()> {
    version(spec)?;
    root(spec)?;
    let none = Linux::default();
    let linux = spec.linux().as_ref().unwrap_or(&none);
    namespaces(linux)?;
    let has = |kind| namespace(linux, kind).is_some();
    names(spec, has(Ns::Uts))?;
    mount_namespace(spec, linux, has(Ns::Mount))?;
    mappings(linux, has(Ns::User))?;
    sysctls(linux)?;
    propagation(linux)?;
    time_offsets(linux)?;
    devices(linux)?;
    net_devices(linux)?;
    hooks(spec)?;
    let process = spec.process().as_ref().ok_or_else(|| {
        Error::invalid("process", "missing", "the process to run (process property must not be empty)")
    })?;
    self::process(process)
}

/// The path with which the config names a namespace: None where it is not listed, Some(None) for a new one.
pub fn namespace(linux: &Linux, kind: Ns) -> Option<Option<&Path>> {
    let listed = linux.namespaces().iter().flatten().find(|ns| ns.typ() == kind)?;
    Some(listed.path().as_deref().filter(|path| !path.as_os_str().is_empty()))
}

fn version(spec: &Spec) -> Result<()> {
    let version = spec.version();
    let mut numbers = version.split(['-', '+']).next().unwrap_or_default().split('.');
    let major = numbers.next().unwrap_or_default();
    let rest_is_numeric = numbers.all(|part| part.parse::<u32>().is_ok());
    if version.is_empty() || (major == "1" && rest_is_numeric) {
        return Ok(());
    }
    Err(Error::invalid("ociVersion", version, "a version 1.x.y of the runtime specification"))
}

fn root(spec: &Spec) -> Result<()> {
    match spec.root() {
        Some(root) if !root.path().as_os_str().is_empty() => Ok(()),
        _ => Err(Error::invalid("root.path", "missing", "the path of the root file system")),
    }
}

fn namespaces(linux: &Linux) -> Result<()> {
    let mut seen = HashSet::new();
    for ns in linux.namespaces().iter().flatten() {
        if !seen.insert(ns.typ()) {
            return Err(Error::invalid("linux.namespaces", ns.typ().to_string(), "each type at most once"));
        }
        if let Some(path) = ns.path()
            && !path.as_os_str().is_empty()
            && !path.is_absolute()
        {
            return Err(Error::invalid(
                "linux.namespaces.path",
                path.display().to_string(),
                "an absolute path",
            ));
        }
    }
    Ok(())
}

fn names(spec: &Spec, uts: bool) -> Result<()> {
    for (field, value) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            if !uts {
                return Err(Error::invalid(field, value, "a private UTS namespace to set it in"));
            }
            if value.len() > 64 || value.contains('\0') {
                return Err(Error::invalid(field, value, "at most 64 bytes"));
            }
        }
    }
    Ok(())
}

/// Without a mount namespace of its own a container would change the caller's mounts.
fn mount_namespace(spec: &Spec, linux: &Linux, private: bool) -> Result<()> {
    let fields = [
        ("mounts", spec.mounts().as_ref().map_or(0, Vec::len)),
        ("linux.maskedPaths", linux.masked_paths().as_ref().map_or(0, Vec::len)),
        ("linux.readonlyPaths", linux.readonly_paths().as_ref().map_or(0, Vec::len)),
    ];
    if !private && let Some((field, count)) = fields.iter().find(|row| row.1 > 0) {
        return Err(Error::invalid(
            *field,
            format!("{count} entries"),
            "a private mount namespace to apply them in",
        ));
    }
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let text = mount.destination().as_os_str().as_encoded_bytes();
        if text.is_empty() || text.contains(&0) {
            let field = format!("mounts[{index}].destination");
            return Err(Error::invalid(
                field,
                mount.destination().display().to_string(),
                "a path in the container",
            ));
        }
        let mapped = (mount.uid_mappings().is_some(), mount.gid_mappings().is_some());
        if mapped.0 != mapped.1 {
            let field = format!("mounts[{index}].uidMappings");
            return Err(Error::invalid(field, "one of uidMappings and gidMappings", "both or none"));
        }
    }
    Ok(())
}

/// Without a user namespace mappings say nothing, as in runc.
fn mappings(linux: &Linux, user: bool) -> Result<()> {
    if !user {
        return Ok(());
    }
    let new = namespace(linux, Ns::User) == Some(None);
    for (field, list) in
        [("linux.uidMappings", linux.uid_mappings()), ("linux.gidMappings", linux.gid_mappings())]
    {
        let count = list.as_ref().map_or(0, Vec::len);
        if count == 0 && new {
            return Err(Error::invalid(field, "missing", "at least one mapping for the new user namespace"));
        }
        if count > 340 {
            return Err(Error::invalid(
                field,
                format!("{count} entries"),
                "at most 340 (user_namespaces(7))",
            ));
        }
        if list.iter().flatten().any(|map| map.size() == 0) {
            return Err(Error::invalid(field, "size 0", "a positive size"));
        }
    }
    Ok(())
}

/// Only what a namespace of the container's own contains may be set; the rest would change the host.
fn sysctls(linux: &Linux) -> Result<()> {
    const IPC: &[&str] = &[
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    for (key, value) in linux.sysctl().iter().flatten() {
        let dotted = key.replace('/', ".");
        let needs = if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            Ns::Ipc
        } else if dotted.starts_with("net.") {
            Ns::Network
        } else if dotted.starts_with("user.") {
            Ns::User
        } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" {
            Ns::Uts
        } else {
            let expected = "a sysctl that is in a separate kernel namespace";
            return Err(Error::invalid(
                "linux.sysctl",
                format!("sysctl {key:?} is not in a separate kernel namespace"),
                expected,
            ));
        };
        if dotted == "kernel.hostname" {
            return Err(Error::invalid("linux.sysctl", key, "the field `hostname` instead"));
        }
        if namespace(linux, needs).is_none() {
            return Err(Error::invalid(
                "linux.sysctl",
                key,
                format!("a private {needs} namespace to set it in"),
            ));
        }
        if dotted.split('.').any(|part| part.is_empty() || part == "..") || value.contains('\0') {
            return Err(Error::invalid("linux.sysctl", key, "a dotted name below /proc/sys"));
        }
    }
    Ok(())
}

fn propagation(linux: &Linux) -> Result<()> {
    match linux.rootfs_propagation().as_deref() {
        Some(value) if !value.is_empty() && mount_options::propagation_type(value).is_none() => {
            Err(Error::invalid(
                "linux.rootfsPropagation",
                value,
                "one of shared, slave, private, unbindable (or r...)",
            ))
        }
        _ => Ok(()),
    }
}

fn time_offsets(linux: &Linux) -> Result<()> {
    for clock in linux.time_offsets().iter().flatten().map(|(clock, _)| clock) {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(Error::invalid("linux.timeOffsets", clock, "monotonic or boottime"));
        }
        if namespace(linux, Ns::Time) != Some(None) {
            return Err(Error::invalid("linux.timeOffsets", clock, "a new time namespace"));
        }
    }
    Ok(())
}

fn devices(linux: &Linux) -> Result<()> {
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        if !device.path().is_absolute() {
            let field = format!("linux.devices[{index}].path");
            return Err(Error::invalid(field, device.path().display().to_string(), "an absolute path"));
        }
    }
    Ok(())
}

fn net_devices(linux: &Linux) -> Result<()> {
    for (name, device) in linux.net_devices().iter().flatten() {
        let new = device.name().as_deref().filter(|new| !new.is_empty()).unwrap_or(name);
        for name in [name.as_str(), new] {
            let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0';
            if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(bad) {
                return Err(Error::invalid("linux.netDevices", name, "a name of 1 to 15 bytes"));
            }
        }
        if namespace(linux, Ns::Network).is_none() {
            return Err(Error::invalid(
                "linux.netDevices",
                name,
                "a private network namespace to move it to",
            ));
        }
    }
    Ok(())
}

fn hooks(spec: &Spec) -> Result<()> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    #[allow(deprecated, reason = "prestart is still in every engine's configs")]
    let prestart = hooks.prestart();
    let all: [(&str, &Option<Vec<Hook>>); 6] = [
        ("prestart", prestart),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (name, list) in all {
        for (index, hook) in list.iter().flatten().enumerate() {
            if !hook.path().is_absolute() {
                let field = format!("hooks.{name}[{index}].path");
                return Err(Error::invalid(field, hook.path().display().to_string(), "an absolute path"));
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                let field = format!("hooks.{name}[{index}].timeout");
                return Err(Error::invalid(
                    field,
                    hook.timeout().unwrap_or(0).to_string(),
                    "more than 0 seconds",
                ));
            }
        }
    }
    Ok(())
}

pub fn process(process: &Process) -> Result<()> {
    match process.args().as_deref() {
        Some([first, ..]) if !first.is_empty() => {}
        _ => return Err(Error::invalid("process.args", "empty", "a program (args must not be empty)")),
    }
    if !process.cwd().is_absolute() {
        let cwd = process.cwd().display().to_string();
        return Err(Error::invalid("process.cwd", cwd, "a path (Cwd must be an absolute path)"));
    }
    let mut strings = process.args().iter().chain(process.env()).flatten();
    if let Some(bad) = strings.find(|text| text.contains('\0')) {
        return Err(Error::invalid("process.args and process.env", format!("{bad:?}"), "no NUL byte"));
    }
    if let Some(score) = *process.oom_score_adj()
        && !(-1000..=1000).contains(&score)
    {
        return Err(Error::invalid("process.oomScoreAdj", score.to_string(), "-1000 to 1000"));
    }
    let mut seen = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        if seen.contains(&limit.typ()) {
            return Err(Error::invalid("process.rlimits", limit.typ().to_string(), "each type at most once"));
        }
        seen.push(limit.typ());
        if limit.soft() > limit.hard() {
            let value = format!("{} soft {} hard {}", limit.typ(), limit.soft(), limit.hard());
            return Err(Error::invalid("process.rlimits", value, "a soft limit within the hard one"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut serde_json::Value)) -> Result<()> {
        let mut value = serde_json::json!({
            "ociVersion": "1.2.0", "root": {"path": "rootfs"}, "hostname": "h",
            "process": {"user": {}, "args": ["a"], "cwd": "/"},
            "linux": {"namespaces": [{"type": "pid"}, {"type": "uts"}, {"type": "mount"}, {"type": "ipc"}]}
        });
        change(&mut value);
        spec(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_plain_config_passes() {
        check(|_| {}).unwrap();
    }

    #[test]
    fn each_rule_names_its_field() {
        type Change = fn(&mut serde_json::Value);
        let rows: [(&str, Change); 12] = [
            ("ociVersion", |v| v["ociVersion"] = "2.0.0".into()),
            ("root.path", |v| v["root"] = serde_json::Value::Null),
            ("process", |v| v["process"] = serde_json::Value::Null),
            ("process.args", |v| v["process"]["args"] = serde_json::json!([])),
            ("process.cwd", |v| v["process"]["cwd"] = "tmp".into()),
            ("linux.namespaces", |v| {
                v["linux"]["namespaces"] = serde_json::json!([{"type": "pid"}, {"type": "pid"}])
            }),
            ("hostname", |v| v["linux"]["namespaces"] = serde_json::json!([])),
            ("linux.sysctl", |v| v["linux"]["sysctl"] = serde_json::json!({"kernel.panic": "1"})),
            ("linux.sysctl", |v| v["linux"]["sysctl"] = serde_json::json!({"net.ipv4.ip_forward": "1"})),
            ("linux.uidMappings", |v| {
                v["linux"]["namespaces"] = serde_json::json!([{"type": "user"}, {"type": "uts"}]);
            }),
            ("linux.rootfsPropagation", |v| v["linux"]["rootfsPropagation"] = "up".into()),
            ("process.rlimits", |v| {
                v["process"]["rlimits"] = serde_json::json!([{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]);
            }),
        ];
        for (field, change) in rows {
            let error = check(change).unwrap_err().to_string();
            assert!(error.starts_with(field), "{field}: {error}");
        }
    }

    #[test]
    fn ids_are_plain_names() {
        for good in ["a", "A-b_c+d.e", "0", "-x", &"a".repeat(1024)] {
            id(good).unwrap();
        }
        for bad in ["", ".", "..", ".a", "a/b", "a b", "ä", "a\0", &"a".repeat(1025)] {
            assert!(id(bad).is_err(), "{bad:?}");
        }
    }
}
