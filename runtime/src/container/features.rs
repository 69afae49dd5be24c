//! `features` (runtime-spec, features.md and features-linux.md): what this build does, on whatever host, but for
//! seccomp's `supportedFlags`. Engines decide by it what they ask for, so nothing is in here that is not done.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::bundle::mount_options;
use crate::isolate::seccomp::support;

/// What the spec has a field for and the code may lack. A test of the suite belongs to each that is `true`.
const SYSTEMD_CGROUPS: bool = true;
const SYSTEMD_USER_CGROUPS: bool = false;
pub(crate) const APPARMOR: bool = true;
pub(crate) const SELINUX: bool = true;
const INTEL_RDT: bool = true;
const NET_DEVICES: bool = true;
const CHECKPOINT: bool = true;

const HOOKS: &[&str] =
    &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

const NAMESPACES: &[&str] = &["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

/// What a profile may name; whether its calls can be made at all is for the host's kernel.
const ARCHS: &[&str] = &[
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

const MEMORY_POLICIES: &[&str] = &[
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];
const MEMORY_POLICY_FLAGS: &[&str] =
    &["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: &'static [&'static str],
    mount_options: Vec<String>,
    linux: Linux,
    annotations: BTreeMap<&'static str, &'static str>,
    /// Annotations that change what the runtime does.
    potentially_unsafe_config_annotations: &'static [&'static str],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: &'static [&'static str],
    capabilities: Vec<String>,
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    memory_policy: MemoryPolicy,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    actions: Vec<&'static str>,
    operators: [&'static str; 7],
    archs: &'static [&'static str],
    known_flags: Vec<String>,
    supported_flags: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Debug, Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Debug, Serialize)]
struct MemoryPolicy {
    modes: &'static [&'static str],
    flags: &'static [&'static str],
}

#[derive(Debug, Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

pub fn features() -> Features {
    let seccomp = Seccomp {
        enabled: true,
        actions: support::actions(),
        operators: support::OPERATORS,
        archs: ARCHS,
        known_flags: support::known_flags(),
        supported_flags: support::supported_flags(),
    };
    let mut capabilities: Vec<_> = caps::all().into_iter().collect();
    capabilities.sort_unstable_by_key(caps::Capability::index);
    Features {
        oci_version_min: "1.0.0",
        oci_version_max: crate::OCI_VERSION,
        hooks: HOOKS,
        mount_options: mount_options::names(),
        linux: Linux {
            namespaces: NAMESPACES,
            capabilities: capabilities.iter().map(ToString::to_string).collect(),
            cgroup: Cgroup {
                v1: true,
                v2: true,
                systemd: SYSTEMD_CGROUPS,
                systemd_user: SYSTEMD_USER_CGROUPS,
                rdma: true,
            },
            seccomp,
            apparmor: Enabled { enabled: APPARMOR },
            selinux: Enabled { enabled: SELINUX },
            intel_rdt: IntelRdt { enabled: INTEL_RDT, schemata: INTEL_RDT, monitoring: INTEL_RDT },
            memory_policy: MemoryPolicy { modes: MEMORY_POLICIES, flags: MEMORY_POLICY_FLAGS },
            mount_extensions: MountExtensions { idmap: Enabled { enabled: true } },
            net_devices: Enabled { enabled: NET_DEVICES },
        },
        annotations: BTreeMap::from([
            ("io.hearth.version", env!("CARGO_PKG_VERSION")),
            ("io.hearth.checkpoint.enabled", if CHECKPOINT { "true" } else { "false" }),
        ]),
        potentially_unsafe_config_annotations: &["org.systemd.property."],
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime as spec;
    use serde::de::DeserializeOwned;

    use super::*;

    fn all_parse<T: DeserializeOwned>(names: &[&str]) {
        for name in names {
            assert!(serde_json::from_value::<T>((*name).into()).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_config_may_name_all_that_is_listed() {
        all_parse::<spec::LinuxNamespaceType>(NAMESPACES);
        all_parse::<spec::LinuxSeccompAction>(&support::actions());
        all_parse::<spec::LinuxSeccompOperator>(&support::OPERATORS);
        all_parse::<spec::Arch>(ARCHS);
        all_parse::<spec::MemoryPolicyModeType>(MEMORY_POLICIES);
        all_parse::<spec::MemoryPolicyFlagType>(MEMORY_POLICY_FLAGS);
        let capabilities = features().linux.capabilities;
        all_parse::<spec::Capability>(&capabilities.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((capabilities.len(), capabilities[0].as_str()), (41, "CAP_CHOWN"));
    }

    #[test]
    fn the_document_is_the_specs() {
        let text = serde_json::to_string(&features()).unwrap();
        let parsed: spec::Features = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed.oci_version_max(), "1.3.0");
    }
}
