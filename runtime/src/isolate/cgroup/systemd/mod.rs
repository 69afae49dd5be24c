//! The systemd driver: the container's group is that of a transient unit, which systemd makes and takes away.
//!
//! A scope is made around a process, and that is the container's init while it waits for its plan: so a launch is
//! one call, and no helper. A slice has no process of its own, and init is cloned into it as into any group. Whatever
//! systemd has a property for it is told (`properties`), for it writes those files again at every reload; all limits
//! are then written by the same code as ever, which knows more of them and is exact.
//!
//! Not told are device rules: systemd would add a program of its own beside ours, which it never removes, and its
//! rules cannot say what ours can. The unit's name is in the container's record before the unit exists, and the unit
//! collects itself when its last process goes: whoever dies on the way leaves nothing that another command could not
//! find, or that is not gone by itself.
//!
//! Cgroup v2 alone; a daemon that is to be quicker than a call a container may have one scope with `Delegate=yes` made
//! for all of them, and name groups below it by plain paths, without this driver.

mod annotations;
mod bus;
mod name;
mod properties;
mod wire;

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use super::create::Leaf;
use super::host::{Host, Mode};
use super::limits::{Current, Setting};
use super::placement::{Group, Placement, v2_place};
use crate::observe::process::is_rootless;
use crate::{Error, Result};
use bus::Bus;
pub use bus::Failure;
use wire::{Method, Value};

const BOOTED: &str = "/run/systemd/system";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

#[derive(Debug, Clone, PartialEq)]
struct Property {
    name: String,
    value: Value,
}

fn property(name: &str, value: Value) -> Property {
    Property { name: name.to_owned(), value }
}

fn list(properties: &[Property]) -> Value {
    let pair = |p: &Property| Value::Struct(vec![Value::text(&p.name), p.value.clone().variant()]);
    Value::Array("(sv)".into(), properties.iter().map(pair).collect())
}

/// The unit of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Unit {
    name: String,
    slice: String,
    /// Of the user's own systemd instead of the system's.
    user: bool,
    /// What annotations ask for: of interest once.
    #[serde(skip)]
    wishes: Vec<Property>,
}

impl Placement {
    /// Of a container whose group systemd makes; a `cgroups_path` is `SLICE:PREFIX:NAME`.
    pub fn by_systemd(
        host: &Host,
        cgroups_path: Option<&str>,
        id: &str,
        annotations: &[(String, String)],
    ) -> Result<Self> {
        let refuse = |expected| Error::invalid("--systemd-cgroup", "systemd", expected);
        if !Path::new(BOOTED).is_dir() {
            return Err(refuse("a host that systemd has booted"));
        }
        let Some(hierarchy) = host.v2.as_ref().filter(|_| host.mode() == Mode::V2) else {
            return Err(refuse(
                "a host with cgroup v2 alone; without this flag v1 and hybrid hosts are served too",
            ));
        };
        let user = is_rootless();
        let names = name::parse(cgroups_path, id, if user { "user.slice" } else { "system.slice" })?;
        let unit = Unit {
            name: names.unit,
            slice: names.slice,
            user,
            wishes: annotations::properties(annotations)?,
        };
        let (mount, path) = (hierarchy.mount.clone(), unit.place()?);
        let group = Group { controllers: Vec::new(), mount, path, parents: 0, joined: true };
        let mut placement = Self::none();
        placement.given = true;
        placement.v2 = Some(group);
        placement.unit = Some(unit);
        // Once it is recorded, the unit is the container's to take away.
        placement.check_unused()?;
        Ok(placement)
    }

    /// A scope is made around a process of the container's that is there already, and waits.
    pub(super) fn scope(&self) -> Option<&Unit> {
        self.unit.as_ref().filter(|unit| !name::is_slice(&unit.name))
    }

    /// Makes the scope around `pid`, sets the limits and opens the group, where it is not done yet.
    pub fn enclose(&mut self, pid: i32, resources: Option<&LinuxResources>, leaf: &mut Leaf) -> Result<()> {
        let (Some(unit), Some(group)) = (self.scope(), &self.v2) else { return Ok(()) };
        let work = self.work(resources, &Current::default())?;
        match unit.start(work.settings(), u32::try_from(pid).ok()) {
            // It is another container's, and must not go with what is taken back of this one.
            Err(error) if is_refusal(&error, UNIT_EXISTS) => {
                *self = Self::none();
                return Err(error);
            }
            result => result?,
        }
        let dir = group.dir();
        let place = v2_place(pid)?;
        if place != group.path {
            let state = format!("is not where systemd has put the container: /{}", place.display());
            return Err(Error::Cgroup { path: dir, state });
        }
        self.carry_out(&work)?;
        leaf.add(group, &dir)
    }
}

impl Unit {
    /// Below the root of the hierarchy.
    fn place(&self) -> Result<PathBuf> {
        let mut place = PathBuf::new();
        if self.user {
            let own = self.own_group_of_manager()?;
            place.push(own.trim_start_matches('/'));
        }
        if name::is_slice(&self.name) {
            place.push(name::expand(&self.name)?);
        } else {
            place.push(name::expand(&self.slice)?);
            place.push(&self.name);
        }
        Ok(place)
    }

    fn own_group_of_manager(&self) -> Result<String> {
        let get = Method { interface: "org.freedesktop.DBus.Properties", ..manager("Get") };
        let body = [Value::text("org.freedesktop.systemd1.Manager"), Value::text("ControlGroup")];
        let reply =
            self.connect().and_then(|mut bus| bus.call(get, &body)).map_err(self.fail("ControlGroup"))?;
        let text = reply.texts("v").map(|[text]| text).unwrap_or_default();
        let is_plain = text.starts_with('/') && !text.split('/').any(|part| part == "..");
        if is_plain {
            return Ok(text);
        }
        let expected = "an absolute path";
        Err(Error::invalid("ControlGroup of the user's systemd", format!("{text:?}"), expected))
    }

    /// Makes the unit with what it knows of the limits; a slice may be there already.
    pub(super) fn start<'a>(
        &self,
        limits: impl Iterator<Item = &'a Setting>,
        pid: Option<u32>,
    ) -> Result<()> {
        let call = "StartTransientUnit";
        let mut bus = self.connect().map_err(self.fail(call))?;
        let limits: Vec<_> = limits.flat_map(properties::of).collect();
        let unit = list(&self.properties(&limits, pid));
        let body = [
            Value::text(&self.name),
            Value::text("replace"),
            unit,
            Value::Array("(sa(sv))".into(), Vec::new()),
        ];
        let mut result = bus.job(manager(call), &body);
        if pid.is_some() && result.as_ref().is_err_and(|failure| failure.is(UNIT_EXISTS)) {
            // It may be what is left of one that failed.
            let _ = bus.call(manager("ResetFailedUnit"), &[Value::text(&self.name)]);
            result = bus.job(manager(call), &body);
        }
        match result {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => {
                let failure = Failure::Refused { name: "the job's result".into(), text: result };
                Err(self.fail(call)(failure))
            }
            Err(failure) if pid.is_none() && failure.is(UNIT_EXISTS) => self.set(&mut bus, &limits),
            Err(failure) => Err(self.fail(call)(failure)),
        }
    }

    fn properties(&self, limits: &[Property], pid: Option<u32>) -> Vec<Property> {
        let mut all = vec![
            property("Description", Value::text(format!("hearth container {}", self.name))),
            property("DefaultDependencies", Value::Bool(false)),
            property("CollectMode", Value::text("inactive-or-failed")),
            property("MemoryAccounting", Value::Bool(true)),
            property("CPUAccounting", Value::Bool(true)),
            property("IOAccounting", Value::Bool(true)),
            property("TasksAccounting", Value::Bool(true)),
        ];
        match pid {
            Some(pid) => all.extend([
                property("Slice", Value::text(&self.slice)),
                property("Delegate", Value::Bool(true)),
                property("PIDs", Value::Array("u".into(), vec![Value::U32(pid)])),
            ]),
            None => {
                all.push(property("Wants", Value::Array("s".into(), vec![Value::text(&self.slice)])));
            }
        }
        all.extend(limits.iter().cloned());
        // The last one counts.
        all.extend(self.wishes.iter().cloned());
        all
    }

    /// Other limits for a unit that is there.
    pub(super) fn update<'a>(&self, limits: impl Iterator<Item = &'a Setting>) -> Result<()> {
        let limits: Vec<_> = limits.flat_map(properties::of).collect();
        if limits.is_empty() {
            return Ok(());
        }
        let mut bus = self.connect().map_err(self.fail("SetUnitProperties"))?;
        self.set(&mut bus, &limits)
    }

    fn set(&self, bus: &mut Bus, properties: &[Property]) -> Result<()> {
        let call = "SetUnitProperties";
        let for_this_boot = Value::Bool(true);
        let body = [Value::text(&self.name), for_this_boot, list(properties)];
        bus.call(manager(call), &body).map(drop).map_err(self.fail(call))
    }

    /// Takes the unit away, whose processes have gone already. Gone by itself is well.
    pub(super) fn stop(&self) -> Result<()> {
        match self.try_stop() {
            Err(failure) if failure.is(NO_SUCH_UNIT) || failure.is_absence() => Ok(()),
            result => result.map_err(self.fail("StopUnit")),
        }
    }

    fn try_stop(&self) -> std::result::Result<(), Failure> {
        let mut bus = self.connect()?;
        bus.job(manager("StopUnit"), &[Value::text(&self.name), Value::text("replace")])?;
        // Where an annotation has it kept after a failure.
        bus.call(manager("ResetFailedUnit"), &[Value::text(&self.name)]).map(drop)
    }

    fn connect(&self) -> std::result::Result<Bus, Failure> {
        Bus::connect(self.user, &self.name)
    }

    fn fail(&self, call: &'static str) -> impl FnOnce(Failure) -> Error {
        let unit = self.name.clone();
        move |source| Error::Systemd { call, unit, source }
    }
}

fn is_refusal(error: &Error, name: &str) -> bool {
    matches!(error, Error::Systemd { source, .. } if source.is(name))
}

const fn manager(name: &'static str) -> Method {
    Method {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a container's record holds: a later version must be able to read it.
    const STORED: &str = r#"{"version":1,"given":true,"joins":"limited","v2":{"controllers":[],"mount":"/nowhere","path":"system.slice/runc-no-such.scope","parents":0,"joined":true},"v1":[],"unit":{"name":"runc-no-such.scope","slice":"system.slice","user":false}}"#;

    #[test]
    fn the_stored_form_stays_readable() {
        let placement: Placement = serde_json::from_str(STORED).unwrap();
        assert!(placement.scope().is_some());
        assert_eq!(serde_json::to_string(&placement).unwrap(), STORED);
    }

    #[test]
    fn what_is_gone_is_well() {
        serde_json::from_str::<Placement>(STORED).unwrap().destroy().unwrap();
    }
}
