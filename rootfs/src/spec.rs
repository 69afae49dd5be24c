//! The config.json that a container starts from: what `runc spec` writes, field for field (runc 1.5; 1.1 adds
//! ambient capabilities and says an older version). The only place that builds it: `hearth spec` prints it,
//! and a bundle's config.json is this with the image's own settings.
//!
//! Plain structs of our own instead of oci-spec's: these keep runc's order of fields, and oci-spec keeps
//! capabilities in a hash set, so that two runs would write two different files.

use std::collections::BTreeMap;

use rustix::fs::statfs;
use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    pub oci_version: &'static str,
    pub process: Process,
    pub root: Root,
    pub hostname: String,
    pub mounts: Vec<Mount>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    pub linux: Linux,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    pub terminal: bool,
    pub user: User,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub capabilities: Capabilities,
    pub rlimits: Vec<Rlimit>,
    pub no_new_privileges: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    pub bounding: &'static [&'static str],
    pub effective: &'static [&'static str],
    pub permitted: &'static [&'static str],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rlimit {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub hard: u64,
    pub soft: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Root {
    pub path: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub readonly: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    pub destination: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub source: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub options: &'static [&'static str],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Linux {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    pub namespaces: Vec<Namespace>,
    pub masked_paths: &'static [&'static str],
    pub readonly_paths: &'static [&'static str],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdMapping {
    #[serde(rename = "containerID")]
    pub container_id: u32,
    #[serde(rename = "hostID")]
    pub host_id: u32,
    pub size: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resources {
    pub devices: Vec<DeviceRule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceRule {
    pub allow: bool,
    pub access: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Namespace {
    #[serde(rename = "type")]
    pub kind: &'static str,
}

/// Whether the container shall be an ordinary user's, and whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Root,
    /// `runc spec --rootless`: a user namespace with this one user and group in it, as its root.
    Rootless {
        uid: u32,
        gid: u32,
    },
    /// The same, and subordinate ids from 1 on.
    Subordinate {
        uid: u32,
        gid: u32,
        uids: Range,
        gids: Range,
    },
}

/// Subordinate ids: the first one, and how many.
pub type Range = (u32, u32);

impl Owner {
    /// This process's user, without subordinate ids.
    pub fn caller() -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if uid.is_root() { Self::Root } else { Self::Rootless { uid: uid.as_raw(), gid: gid.as_raw() } }
    }
}

const CAPABILITIES: &[&str] = &["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];

const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

impl Spec {
    /// `cgroup2`: the host has the unified hierarchy only, see [`host_has_cgroup2_only`].
    pub fn new(owner: Owner, cgroup2: bool) -> Self {
        Self {
            oci_version: "1.3.0",
            process: process(),
            root: Root { path: "rootfs", readonly: true },
            hostname: "runc".into(),
            mounts: mounts(owner),
            annotations: BTreeMap::new(),
            linux: linux(owner, cgroup2),
        }
    }

    /// As `runc spec` lays it out: indented by tabs, no newline at the end.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let mut json = Vec::new();
        let layout = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        self.serialize(&mut serde_json::Serializer::with_formatter(&mut json, layout))?;
        Ok(json)
    }
}

/// Whether /sys/fs/cgroup is the unified hierarchy: then `runc spec` asks for a cgroup namespace too.
pub fn host_has_cgroup2_only() -> bool {
    const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
    statfs("/sys/fs/cgroup").is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(CGROUP2_SUPER_MAGIC))
}

fn process() -> Process {
    Process {
        terminal: true,
        user: User::default(),
        args: vec!["sh".into()],
        env: vec![
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            "TERM=xterm".into(),
        ],
        cwd: "/".into(),
        capabilities: Capabilities {
            bounding: CAPABILITIES,
            effective: CAPABILITIES,
            permitted: CAPABILITIES,
        },
        rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE", hard: 1024, soft: 1024 }],
        no_new_privileges: true,
    }
}

fn mounts(owner: Owner) -> Vec<Mount> {
    let rootless = owner != Owner::Root;
    let mount = |destination: &str, kind, source, options| Mount {
        destination: destination.into(),
        kind,
        source,
        options,
    };
    // group 5 (tty) is not in a container's one-entry map
    let devpts: &[&str] = &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let devpts = if matches!(owner, Owner::Rootless { .. }) { &devpts[..5] } else { devpts };
    vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", devpts),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        if rootless {
            // without a network namespace of its own it may not mount sysfs
            mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"])
        } else {
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
        },
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

fn map(container_id: u32, (host_id, size): Range) -> IdMapping {
    IdMapping { container_id, host_id, size }
}

fn linux(owner: Owner, cgroup2: bool) -> Linux {
    let mut namespaces = vec!["pid", "ipc", "uts", "mount"];
    let mut linux = Linux {
        uid_mappings: vec![],
        gid_mappings: vec![],
        resources: None,
        namespaces: vec![],
        masked_paths: MASKED,
        readonly_paths: READONLY,
    };
    match owner {
        Owner::Root => {
            namespaces.insert(1, "network");
            linux.resources = Some(Resources { devices: vec![DeviceRule { allow: false, access: "rwm" }] });
        }
        Owner::Rootless { uid, gid } => {
            linux.uid_mappings = vec![map(0, (uid, 1))];
            linux.gid_mappings = vec![map(0, (gid, 1))];
        }
        Owner::Subordinate { uid, gid, uids, gids } => {
            linux.uid_mappings = vec![map(0, (uid, 1)), map(1, uids)];
            linux.gid_mappings = vec![map(0, (gid, 1)), map(1, gids)];
        }
    }
    if cgroup2 {
        namespaces.push("cgroup");
    }
    if owner != Owner::Root {
        namespaces.push("user");
    }
    linux.namespaces = namespaces.into_iter().map(|kind| Namespace { kind }).collect();
    linux
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use serde_json::{Value, json};

    use super::*;

    /// What a runc writes, with what runc 1.1 has differently from later ones taken away.
    fn runc_spec(runc: &Path, flags: &[&str]) -> Value {
        let directory = tempfile::tempdir().unwrap();
        let status = Command::new(runc).arg("spec").args(flags).current_dir(&directory).status().unwrap();
        assert!(status.success());
        let config = std::fs::read(directory.path().join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&config).unwrap();
        config["ociVersion"] = json!("1.3.0");
        config["process"]["capabilities"].as_object_mut().unwrap().remove("ambient");
        config
    }

    fn runcs() -> Vec<std::path::PathBuf> {
        let path = std::env::var_os("PATH").unwrap();
        let runcs: Vec<_> = std::env::split_paths(&path).map(|directory| directory.join("runc")).collect();
        let runcs: Vec<_> = runcs.into_iter().filter(|runc| runc.exists()).collect();
        assert!(!runcs.is_empty(), "runc is the reference: install it");
        runcs
    }

    #[test]
    fn the_spec_is_what_every_runc_here_writes() {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        for (flags, owner) in [(&[][..], Owner::Root), (&["--rootless"], Owner::Rootless { uid, gid })] {
            let ours: Value =
                serde_json::from_slice(&Spec::new(owner, host_has_cgroup2_only()).to_json().unwrap())
                    .unwrap();
            for runc in runcs() {
                assert_eq!(ours, runc_spec(&runc, flags), "{} {flags:?}", runc.display());
            }
        }
    }

    #[test]
    fn the_layout_is_that_of_runc_too() {
        let text = String::from_utf8(Spec::new(Owner::Root, false).to_json().unwrap()).unwrap();
        assert!(
            text.starts_with("{\n\t\"ociVersion\": \"1.3.0\",\n\t\"process\": {\n\t\t\"terminal\": true,")
        );
    }

    #[test]
    fn a_host_of_cgroup2_gets_a_cgroup_namespace() {
        let kinds =
            |owner| Spec::new(owner, true).linux.namespaces.iter().map(|n| n.kind).collect::<Vec<_>>();
        assert_eq!(kinds(Owner::Root), ["pid", "network", "ipc", "uts", "mount", "cgroup"]);
        assert_eq!(
            kinds(Owner::Rootless { uid: 1, gid: 1 }),
            ["pid", "ipc", "uts", "mount", "cgroup", "user"]
        );
    }
}
