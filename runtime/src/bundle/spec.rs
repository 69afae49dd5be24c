//! config.json at its top, and its `process`. Below them the types are oci-spec's; these two are our own, since
//! oci-spec's `Process` brings a regular-expression engine of 0.6 MiB for one field. Accessors as in oci-spec.

use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::runtime::{
    Box as ConsoleSize, Hooks, Linux, LinuxCapabilities, LinuxIOPriority, Mount, PosixRlimit, Root,
    Scheduler, User,
};
use serde::Deserialize;

/// Structs whose fields are read by methods of the same names.
macro_rules! document {
    ($(#[$doc:meta])* $name:ident { $($(#[$meta:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $($(#[$meta])* $field: $kind,)*
        }

        impl $name {
            $(pub fn $field(&self) -> &$kind {
                &self.$field
            })*
        }
    };
}

document! {
    /// config.md
    Spec {
        #[serde(rename = "ociVersion")]
        version: String,
        root: Option<Root>,
        mounts: Option<Vec<Mount>>,
        process: Option<Process>,
        hostname: Option<String>,
        domainname: Option<String>,
        hooks: Option<Hooks>,
        annotations: Option<HashMap<String, String>>,
        linux: Option<Linux>,
    }
}

document! {
    /// config.md, "Process"
    Process {
        terminal: Option<bool>,
        console_size: Option<ConsoleSize>,
        user: User,
        args: Option<Vec<String>>,
        env: Option<Vec<String>>,
        cwd: PathBuf,
        capabilities: Option<LinuxCapabilities>,
        rlimits: Option<Vec<PosixRlimit>>,
        no_new_privileges: Option<bool>,
        apparmor_profile: Option<String>,
        oom_score_adj: Option<i32>,
        selinux_label: Option<String>,
        io_priority: Option<LinuxIOPriority>,
        scheduler: Option<Scheduler>,
        #[serde(rename = "execCPUAffinity")]
        exec_cpu_affinity: Option<CpuAffinity>,
    }
}

document! {
    /// CPU lists such as `0-3,7`.
    CpuAffinity {
        initial: Option<String>,
        r#final: Option<String>,
    }
}

impl Spec {
    pub fn linux_mut(&mut self) -> &mut Option<Linux> {
        &mut self.linux
    }
}
