//! `linux.intelRdt`: cache and memory bandwidth, by a group in the resctrl file system.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Where the kernel makes a directory for it; an administrator mounts it.
const USUAL: &str = "/sys/fs/resctrl";
const MAGIC: rustix::fs::FsWord = 0x0765_5821;

/// The groups of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Groups {
    class: PathBuf,
    /// Whether the class is the container's own, to be removed with it.
    own: bool,
    monitor: Option<PathBuf>,
}

/// Names the groups of a container, and refuses what this host cannot do. Makes nothing.
pub fn plan(rdt: &LinuxIntelRdt, id: &str) -> Result<Groups> {
    let root = root().ok_or_else(|| {
        let expected = "a host with resctrl mounted (but Intel RDT is not enabled)";
        Error::invalid("linux.intelRdt", "intelRdt is specified in config", expected)
    })?;
    plan_in(&root, rdt, id)
}

fn root() -> Option<PathBuf> {
    if rustix::fs::statfs(USUAL).is_ok_and(|info| info.f_type == MAGIC) {
        return Some(USUAL.into());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.contains(" - resctrl "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

fn plan_in(root: &Path, rdt: &LinuxIntelRdt, id: &str) -> Result<Groups> {
    let class = match rdt.clos_id().as_deref() {
        None | Some("") => root.join(id),
        // The class of all that is in no other.
        Some("/") => root.to_owned(),
        Some(name) if name == "." || name == ".." || name.contains(['/', '\0']) => {
            return Err(Error::invalid("linux.intelRdt.closID", name, "the name of a directory"));
        }
        Some(name) => root.join(name),
    };
    for (field, given, feature) in
        [("l3CacheSchema", rdt.l3_cache_schema(), "L3"), ("memBwSchema", rdt.mem_bw_schema(), "MB")]
    {
        if let Some(value) = given
            && !root.join("info").join(feature).exists()
        {
            let expected = format!("a host whose resctrl has info/{feature}");
            return Err(Error::invalid(format!("linux.intelRdt.{field}"), value, expected));
        }
    }
    let own = rdt.clos_id().as_ref().is_none_or(String::is_empty) && !class.exists();
    if !own && schemata(rdt).is_empty() && !class.exists() {
        let value = class.display().to_string();
        return Err(Error::invalid(
            "linux.intelRdt.closID",
            value,
            "an existing group, as there are no schemata",
        ));
    }
    let monitor = rdt.enable_monitoring().unwrap_or(false).then(|| class.join("mon_groups").join(id));
    Ok(Groups { class, own, monitor })
}

/// The lines to write, each at its end.
fn schemata(rdt: &LinuxIntelRdt) -> String {
    let lines = rdt.l3_cache_schema().iter().chain(rdt.mem_bw_schema());
    let lines = lines.chain(rdt.schemata().iter().flatten()).filter(|line| !line.is_empty());
    lines.flat_map(|line| [line.as_str(), "\n"]).collect()
}

impl Groups {
    /// Makes the groups, and moves a process into them.
    pub fn create(&self, rdt: &LinuxIntelRdt, pid: i32) -> Result<()> {
        make(&self.class)?;
        let schemata = schemata(rdt);
        if !schemata.is_empty() {
            self.write(&self.class.join("schemata"), &schemata)?;
        }
        self.monitor.as_ref().map_or(Ok(()), |monitor| make(monitor))?;
        self.join(pid)
    }

    /// Moves a process into the groups, and with it all that it will make.
    pub fn join(&self, pid: i32) -> Result<()> {
        let mut groups = std::iter::once(&self.class).chain(&self.monitor);
        groups.try_for_each(|group| self.write(&group.join("tasks"), &pid.to_string()))
    }

    /// Takes away what is the container's own. A class that the config names is others' too.
    pub fn destroy(&self) -> Result<()> {
        let own = if self.own { Some(&self.class) } else { self.monitor.as_ref() };
        match own.map(fs::remove_dir) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::path("rmdir", own.unwrap_or(&self.class))(error))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, path: &Path, value: &str) -> Result<()> {
        fs::write(path, value).map_err(|source| {
            // The kernel says there what its errno does not.
            let root =
                if self.class.join("info").exists() { Some(&*self.class) } else { self.class.parent() };
            let status = root.and_then(|root| fs::read_to_string(root.join("info/last_cmd_status")).ok());
            let status = status.unwrap_or_default();
            let what = format!("linux.intelRdt: write {value:?} to {} ({})", path.display(), status.trim());
            Error::Refused { what, source }
        })
    }
}

fn make(group: &Path) -> Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::path("mkdir", group)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No machine of ours has the hardware: a directory shows which files would be written.
    fn fake() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for dir in ["info/L3", "info/MB", "mon_groups", "gold/mon_groups"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        root
    }

    fn rdt(value: serde_json::Value) -> LinuxIntelRdt {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_container_gets_a_class_of_its_own_and_leaves_none() {
        let root = fake();
        let rdt = rdt(serde_json::json!({
            "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20", "schemata": ["L2:0=3"]
        }));
        let groups = plan_in(root.path(), &rdt, "c1").unwrap();
        groups.create(&rdt, 42).unwrap();
        let read = |name: &str| fs::read_to_string(root.path().join("c1").join(name)).unwrap();
        assert_eq!(read("schemata"), "L3:0=f\nMB:0=20\nL2:0=3\n");
        assert_eq!(read("tasks"), "42");
        for name in ["schemata", "tasks"] {
            fs::remove_file(root.path().join("c1").join(name)).unwrap();
        }
        groups.destroy().unwrap();
        groups.destroy().unwrap();
        assert!(!root.path().join("c1").exists());
    }

    #[test]
    fn a_named_class_stays_and_its_monitoring_group_goes() {
        let root = fake();
        let rdt = rdt(serde_json::json!({"closID": "gold", "enableMonitoring": true}));
        let groups = plan_in(root.path(), &rdt, "c1").unwrap();
        groups.create(&rdt, 42).unwrap();
        let monitor = root.path().join("gold/mon_groups/c1");
        assert_eq!(fs::read_to_string(monitor.join("tasks")).unwrap(), "42");
        fs::remove_file(monitor.join("tasks")).unwrap();
        groups.destroy().unwrap();
        assert!(!monitor.exists() && root.path().join("gold").exists());
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_field() {
        let root = fake();
        fs::remove_dir(root.path().join("info/MB")).unwrap();
        for (field, value) in [
            ("closID", serde_json::json!({"closID": ".."})),
            ("closID", serde_json::json!({"closID": "a/b"})),
            ("closID", serde_json::json!({"closID": "not-there"})),
            ("memBwSchema", serde_json::json!({"memBwSchema": "MB:0=20"})),
        ] {
            let error = plan_in(root.path(), &rdt(value), "c1").unwrap_err().to_string();
            assert!(error.starts_with(&format!("linux.intelRdt.{field}")), "{error}");
        }
    }
}
