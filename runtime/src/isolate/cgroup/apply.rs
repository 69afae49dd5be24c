//! Limits, written: which group each of them belongs to, the v2 controllers they need, and the order of writes.

use std::path::Path;

use oci_spec::runtime::LinuxResources;

use super::files;
use super::limits::{self, Current, Missing, Setting};
use super::placement::{Group, Joins, Placement};
use crate::{Error, Result};

/// The values for one group.
struct Settings<'a> {
    group: &'a Group,
    values: Vec<Setting>,
}

/// Everything that is to be written, and the v2 controllers that must be enabled for it.
#[derive(Default)]
pub(super) struct Work<'a> {
    settings: Vec<Settings<'a>>,
    v2_controllers: Vec<String>,
    pub(super) notes: Vec<String>,
}

impl Work<'_> {
    pub(super) fn settings(&self) -> impl Iterator<Item = &Setting> {
        self.settings.iter().flat_map(|settings| &settings.values)
    }
}

impl Placement {
    /// Translates the limits and finds the group for each of them.
    pub(super) fn work(&self, resources: Option<&LinuxResources>, current: &Current) -> Result<Work<'_>> {
        let mut work = Work::default();
        let Some(resources) = resources else { return Ok(work) };
        for controller in limits::needed(resources) {
            let name = controller.v1_name();
            if let Some(group) = self.joined(name) {
                work.settings.push(Settings { group, values: limits::v1(controller, resources)? });
            } else if let Some(group) = self.v2_home(controller) {
                let values = limits::v2(controller, resources, current)?;
                if !values.is_empty() {
                    work.settings.push(Settings { group, values });
                    work.v2_controllers.extend(controller.v2_name().map(str::to_owned));
                }
            } else {
                let expected =
                    if self.is_none() { "a container in a group" } else { "a controller that this host has" };
                return Err(Error::invalid("linux.resources", name, expected));
            }
        }
        work.notes = limits::notes(resources, |controller| self.v2_home(controller).is_some());
        self.unified(resources, &mut work)?;
        Ok(work)
    }

    /// Writes all of it.
    pub(super) fn carry_out(&self, work: &Work<'_>) -> Result<()> {
        if let Some(group) = &self.v2 {
            self.enable(group, &work.v2_controllers)?;
        }
        work.settings.iter().try_for_each(|Settings { group, values }| apply(&group.dir(), values))
    }

    fn unified<'a>(&'a self, resources: &LinuxResources, work: &mut Work<'a>) -> Result<()> {
        let Some(map) = resources.unified().as_ref().filter(|map| !map.is_empty()) else { return Ok(()) };
        let settings = limits::unified(map)?;
        let Some(group) = &self.v2 else {
            let expected = "a host with cgroup v2";
            let field = "invalid configuration: linux.resources.unified";
            return Err(Error::invalid(field, format!("{} keys", map.len()), expected));
        };
        let mut values = Vec::new();
        for (setting, controller) in settings {
            let v1_name = if controller == "io" { "blkio" } else { controller.as_str() };
            if self.v1_group(v1_name).is_some() {
                let expected = "a controller of the v2 hierarchy: this host has it in v1";
                let field = "invalid configuration: linux.resources.unified";
                return Err(Error::invalid(field, setting.file, expected));
            }
            if controller != "cgroup" && !work.v2_controllers.contains(&controller) {
                work.v2_controllers.push(controller);
            }
            values.push(setting);
        }
        work.settings.push(Settings { group, values });
        Ok(())
    }

    /// Enables controllers for the v2 group, from the nearest parent that has them downwards. On a v2 host, where
    /// the config or a supervisor asks for the place, all that there are, as runc does, so that the supervisor can
    /// read and set them; otherwise only those that are needed, as each has its cost.
    fn enable(&self, group: &Group, needed: &[String]) -> Result<()> {
        let enables_all = self.is_v2_alone() && (self.given || self.joins == Joins::All);
        if needed.is_empty() && !enables_all {
            return Ok(());
        }
        let has = |dir: &Path| {
            let path = dir.join("cgroup.controllers");
            files::read(&path).map_err(Error::path("read", path))
        };
        let lacking = |listed: &str, wanted: &[String]| -> Vec<String> {
            wanted.iter().filter(|name| !listed.split_whitespace().any(|l| l == *name)).cloned().collect()
        };
        let root = if enables_all { has(&group.mount)? } else { String::new() };
        let mut wanted: Vec<String> = root.split_whitespace().map(str::to_owned).collect();
        wanted.extend(lacking(&root, needed));
        let dir = group.dir();
        let missing = lacking(&has(&dir)?, &wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let mut parents = Vec::new();
        for parent in dir.ancestors().skip(1).take_while(|parent| parent.starts_with(&group.mount)) {
            parents.push(parent);
            if lacking(&has(parent)?, &missing).is_empty() {
                break;
            }
        }
        for parent in parents.into_iter().rev() {
            enable_below(parent, &missing, needed)?;
        }
        match lacking(&has(&dir)?, needed).first() {
            None => Ok(()),
            Some(name) => {
                let expected = "a controller that this host's cgroup v2 has for this group";
                Err(Error::invalid("linux.resources", name, expected))
            }
        }
    }
}

/// All controllers in one write; if one of them is refused, each by itself, and only a needed one is an error.
fn enable_below(parent: &Path, controllers: &[String], needed: &[String]) -> Result<()> {
    let path = parent.join("cgroup.subtree_control");
    let all: Vec<_> = controllers.iter().map(|name| format!("+{name}")).collect();
    if files::write(&path, &all.join(" ")).is_ok() {
        return Ok(());
    }
    for name in controllers {
        let result = files::write_value(&path, &format!("+{name}"));
        if needed.contains(name) {
            result?;
        }
    }
    Ok(())
}

/// Some values check each other (memory and memsw, quota, period and burst): what is refused at first is written
/// again after the others, so that raising and lowering both work without reading what is there.
fn apply(dir: &Path, settings: &[Setting]) -> Result<()> {
    let mut refused = Vec::new();
    for setting in settings {
        match set(dir, setting) {
            Err(Error::Write { source, .. })
                if source.raw_os_error() == Some(libc::EINVAL) && settings.len() > 1 =>
            {
                refused.push(setting);
            }
            other => other?,
        }
    }
    refused.into_iter().try_for_each(|setting| set(dir, setting))
}

fn set(dir: &Path, setting: &Setting) -> Result<()> {
    let result = files::write_value(&dir.join(&setting.file), &setting.value);
    match (&result, &setting.missing) {
        (Err(Error::Write { source, .. }), missing) if source.raw_os_error() == Some(libc::ENOENT) => {
            match missing {
                Missing::Fail => result,
                Missing::Skip => Ok(()),
                Missing::Instead(other) => set(dir, other),
            }
        }
        _ => result,
    }
}
