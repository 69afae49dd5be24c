//! Changing the limits and device rules of a container that is there already.

use oci_spec::runtime::LinuxResources;

use super::create::{Below, Made, inherit_cpuset, make};
use super::devices::DeviceRule;
use super::files;
use super::limits::{self, Controller, Current};
use super::placement::{Group, Placement};
use crate::{Error, Result};

impl Placement {
    /// The placement as [`Self::update`] will leave it: stored before, a crash on the way leaves no unknown group.
    pub fn joining(&self, resources: &LinuxResources) -> Result<Self> {
        let mut wanted = self.clone();
        wanted.find_v1()?;
        let names: Vec<_> = limits::needed(resources).into_iter().map(Controller::v1_name).collect();
        for group in wanted.v1.iter_mut().filter(|group| names.iter().any(|name| group.has(name))) {
            group.join();
        }
        Ok(wanted)
    }

    /// Changes the limits of a container. What `resources` leaves out stays as it is. A v1 hierarchy that the
    /// container had no need of so far is joined, so the placement is to be stored again, whatever the result.
    /// Returns notes.
    pub fn update(&mut self, resources: &LinuxResources) -> Result<Vec<String>> {
        let wanted = self.joining(resources)?;
        let v2 = wanted.v2.as_ref().map(Group::dir);
        let cpu_max = match &v2 {
            Some(dir) if wanted.v2_home(Controller::Cpu).is_some() => files::read_if_there(dir, "cpu.max")?,
            _ => None,
        };
        let work = wanted.work(Some(resources), &Current { cpu_max })?;
        wanted.check_usage(resources)?;
        let old = std::mem::replace(self, wanted.clone());
        let is_new = |group: &&Group| group.joined && !old.groups().any(|had| had.mount == group.mount);
        for group in wanted.v1.iter().filter(is_new) {
            enter(&old, group)?;
        }
        if let Some(unit) = &wanted.unit {
            unit.update(work.settings())?;
        }
        wanted.carry_out(&work)?;
        Ok(work.notes)
    }

    /// `checkBeforeUpdate`: a limit below what is in use would only bring the OOM killer.
    fn check_usage(&self, resources: &LinuxResources) -> Result<()> {
        let memory = resources.memory().unwrap_or_default();
        if memory.check_before_update() != Some(true) {
            return Ok(());
        }
        let (dir, file) = match (self.joined("memory"), &self.v2) {
            (Some(group), _) => (group.dir(), "memory.usage_in_bytes"),
            (None, Some(group)) => (group.dir(), "memory.current"),
            (None, None) => return Ok(()),
        };
        let usage =
            files::read_if_there(&dir, file)?.and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or(0);
        for (field, limit) in [("limit", memory.limit()), ("swap", memory.swap())] {
            if let Some(limit @ 1..) = limit
                && limit <= usage
            {
                let expected = format!("more than the usage of {usage}");
                return Err(Error::invalid(
                    format!("linux.resources.memory.{field}"),
                    limit.to_string(),
                    expected,
                ));
            }
        }
        Ok(())
    }

    /// Replaces the device rules of a running container. A v1 group denies all for the moment between two writes.
    pub fn update_devices(&self, devices: &[DeviceRule]) -> Result<Option<String>> {
        let v2 = self.open(&Below::default())?.v2;
        self.restrict_devices(v2.as_ref(), devices, Made::Before)
    }
}

/// Moves the container into a v1 group that it was not in.
fn enter(container: &Placement, group: &Group) -> Result<()> {
    let dir = group.dir();
    make(group, &dir, &mut Vec::new())?;
    if group.has("cpuset") {
        inherit_cpuset(&dir)?;
    }
    // Frozen, so that no process is born outside meanwhile.
    container.frozen(|container| {
        let procs = dir.join("cgroup.procs");
        container.processes()?.iter().try_for_each(|pid| files::write_value(&procs, &pid.to_string()))
    })
}
