//! Parks sandboxes of one bundle: everything of `create` but the claim.

use std::path::Path;

use super::Container;
use super::create::{self, Made, Options};
use crate::bundle::load::{self, Bundle};
use crate::bundle::plan::{self, Plan};
use crate::isolate::labels;
use crate::observe::Timeline;
use crate::process::spawn::Spawned;
use crate::store::Root;
use crate::{Error, Result};

/// A bundle, read and planned once for all the sandboxes that stand on it.
#[derive(Debug)]
pub struct Template {
    bundle: Bundle,
    plan: Plan,
}

/// A sandbox on its way: its init says on the socket when it is ready, or what failed.
#[derive(Debug)]
pub struct Parked {
    pub container: Container,
    pub spawned: Spawned,
}

impl Template {
    pub fn load(bundle: &Path) -> Result<Self> {
        let bundle = load::bundle(bundle)?;
        let plan = plan::plan("parked", &bundle).map_err(|error| error.at("config.json"))?;
        labels::check(&plan.init.process)?;
        let template = Self { bundle, plan };
        match template.unfit() {
            Some(field) => Err(Error::invalid(field, "set", "nothing: a parked sandbox cannot stand for it")),
            None => Ok(template),
        }
    }

    /// The field of config.json, if any, that each launch must settle anew.
    fn unfit(&self) -> Option<&'static str> {
        let Plan { host, init } = &self.plan;
        let hooks = &host.hooks;
        let has_hooks = init.has_early_hooks()
            || !(init.start_container.is_empty() && hooks.poststart.is_empty() && hooks.poststop.is_empty());
        let rules = [
            ("hooks", has_hooks),
            ("linux.namespaces.path", !host.joined.is_empty()),
            ("linux.uidMappings", !(host.uid_mappings.is_empty() && host.gid_mappings.is_empty())),
            ("linux.timeOffsets", !host.time_offsets.is_empty()),
            ("linux.cgroupsPath", host.cgroups_path.is_some()),
            ("linux.netDevices", !host.net_devices.is_empty()),
            ("linux.intelRdt", host.intel_rdt.is_some()),
            ("linux.seccomp.listenerPath", host.seccomp_agent.is_some()),
        ];
        if !init.mount_namespace {
            return Some("linux.namespaces without mount");
        }
        rules.into_iter().find(|(_, set)| *set).map(|(field, _)| field)
    }

    pub fn park(&mut self, root: &Root, id: &str) -> Result<Parked> {
        let options = options(id, false);
        id.clone_into(&mut self.plan.init.id);
        let mut made = Made::new(create::reserve(root, id)?);
        made.set_off(&options, &self.bundle, &mut self.plan, &mut Timeline::default())?;
        let (Some(dir), Some(record), Some(spawned)) =
            (made.dir.take(), made.record.take(), made.spawned.take())
        else {
            return Err(Error::InitGone);
        };
        dir.write(&record)?;
        dir.unlock()?;
        Ok(Parked { container: Container { dir, record: Some(record) }, spawned })
    }
}

/// What `create` is asked for in the name of a launch.
pub(super) fn options(id: &str, timeline: bool) -> Options {
    Options {
        id: id.to_owned(),
        bundle: std::path::PathBuf::new(),
        console_socket: None,
        pid_file: None,
        preserve_fds: 0,
        init: false,
        no_pivot: false,
        no_new_keyring: false,
        systemd_cgroup: false,
        rootless: None,
        runs: false,
        detach: false,
        parks: true,
        timeline,
    }
}
