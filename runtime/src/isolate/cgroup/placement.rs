//! Where a container's groups are. Planned once, stored in the container's record, and enough for every later
//! verb: nothing is detected again.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Deserializer, Serialize};

use super::delegation::may_move_into;
use super::files;
use super::host::{Hierarchy, Host, Mode, Own};
use super::limits::{self, Controller};
use super::systemd::Unit;
use crate::isolate::cgroup_view::{Hierarchy as Shown, View};
use crate::{Error, Result};

/// Of the stored form. A record with another one is refused instead of being misread.
const VERSION: u32 = 1;

/// Leaves room for the mount point and a control file within PATH_MAX.
const MAX_PATH: usize = 3072;
const MAX_NAME: usize = 255;

/// Which v1 hierarchies a container joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Joins {
    /// Every one that runc joins, so that the container is accounted to itself everywhere.
    All,
    /// Those that its limits need, and what it is tracked by.
    Limited,
}

/// A group of one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    /// Empty for v2.
    pub(super) controllers: Vec<String>,
    pub(super) mount: PathBuf,
    /// Below the mount point.
    #[serde(deserialize_with = "below_root")]
    pub(super) path: PathBuf,
    /// How many parents of the group were missing when it was planned: they go with it, if empty.
    pub(super) parents: usize,
    /// Whether the container is in it; what is not joined may be joined by a later update.
    pub(super) joined: bool,
}

impl Group {
    pub(super) fn dir(&self) -> PathBuf {
        self.mount.join(&self.path)
    }

    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    pub(super) fn shown(&self, leaf: PathBuf) -> Shown {
        let name = self.mount.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Shown { name, parameters: self.controllers.clone(), leaf }
    }

    /// The container is to be in it from now on.
    pub(super) fn join(&mut self) {
        if !self.joined {
            self.parents = missing_parents(&self.mount, &self.path);
            self.joined = true;
        }
    }

    /// The parents that come and go with the group, the nearest first.
    pub(super) fn own_parents(&self) -> impl DoubleEndedIterator<Item = PathBuf> {
        let parents: Vec<_> =
            self.path.ancestors().skip(1).take(self.parents).map(|p| self.mount.join(p)).collect();
        parents.into_iter()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    #[serde(deserialize_with = "known_version")]
    version: u32,
    /// Whether the config named the place.
    pub(super) given: bool,
    pub(super) joins: Joins,
    pub(super) v2: Option<Group>,
    pub(super) v1: Vec<Group>,
    /// There is v1 beside v2, which `v1` does not list: the container needed nothing of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) has_unlisted_v1: bool,
    /// The unit of systemd's that has the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<Unit>,
    /// Whether the caller is content with the groups that it may make (`--rootless`); where not said, an ordinary
    /// user is.
    #[serde(skip)]
    pub rootless: Option<bool>,
    /// What a container in no group is shown: where its caller is.
    #[serde(skip)]
    pub(super) callers: Option<View>,
}

fn known_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let found = u32::deserialize(deserializer)?;
    if found == VERSION {
        return Ok(found);
    }
    Err(serde::de::Error::custom(format!("cgroup placement of version {found}: expected {VERSION}")))
}

/// Everything in a container's group may be killed, so a record must never name a root.
fn below_root<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
    if is_below && path.components().next().is_some() {
        return Ok(path);
    }
    Err(serde::de::Error::custom(format!("cgroup {}: expected a group below the root", path.display())))
}

impl Placement {
    /// The place of a container in no group at all.
    pub fn none() -> Self {
        Self {
            version: VERSION,
            given: false,
            joins: Joins::Limited,
            v2: None,
            v1: Vec::new(),
            has_unlisted_v1: false,
            unit: None,
            rootless: None,
            callers: None,
        }
    }

    /// An absolute `cgroups_path` starts at the root of each hierarchy. A relative one starts at the caller's own
    /// group; on a v2 host at that group's parent, for a group with processes cannot have limited children.
    /// Without one, the container's id is the relative path.
    pub fn plan(
        host: &Host,
        cgroups_path: Option<&str>,
        id: &str,
        joins: Joins,
        resources: Option<&LinuxResources>,
    ) -> Result<Self> {
        let given = cgroups_path.filter(|path| !path.is_empty());
        let (field, wanted) = given.map_or(("id", id), |path| ("linux.cgroupsPath", path));
        let (is_absolute, path) = clean(field, wanted)?;
        let own =
            if is_absolute || (host.v2.is_none() && host.v1.is_empty()) { None } else { Some(Own::read()?) };
        let is_root = rustix::process::geteuid().is_root();
        let base = |hierarchy: &Hierarchy| {
            let place = own.as_ref().map(|own| own.place_in(hierarchy)).unwrap_or_default();
            let parent = place.parent().map(|parent| hierarchy.mount.join(parent));
            // To an ordinary user no more than its own group may be delegated.
            if host.mode() == Mode::V2 && parent.is_some_and(|parent| is_root || may_move_into(&parent)) {
                place.parent().map(Path::to_owned).unwrap_or_default()
            } else {
                place
            }
        };
        let needed = resources.map(limits::needed).unwrap_or_default();
        let is_joined = |hierarchy: &Hierarchy| {
            let has = |name: &str| hierarchy.controllers.iter().any(|controller| controller == name);
            joins == Joins::All
                || needed.iter().any(|controller| has(controller.v1_name()))
                || (host.v2.is_none() && (has("freezer") || has("devices")))
        };
        let group = |hierarchy: &Hierarchy, joined| Group {
            controllers: hierarchy.controllers.clone(),
            mount: hierarchy.mount.clone(),
            parents: if joined { missing_parents(&hierarchy.mount.join(base(hierarchy)), &path) } else { 0 },
            path: base(hierarchy).join(&path),
            joined,
        };
        Ok(Self {
            version: VERSION,
            given: given.is_some(),
            joins,
            v2: host.v2.as_ref().map(|hierarchy| group(hierarchy, true)),
            v1: host.v1.iter().map(|hierarchy| group(hierarchy, is_joined(hierarchy))).collect(),
            has_unlisted_v1: host.has_unlisted_v1,
            unit: None,
            rootless: None,
            callers: None,
        })
    }

    /// Lists the v1 hierarchies that were not looked for when the container was placed (see
    /// [`Host::detect_for`]): what it did not need it was not put below, so its place there is the caller's to give.
    pub(super) fn find_v1(&mut self) -> Result<()> {
        let Some(name) = self.v2.as_ref().and_then(|group| group.path.file_name()) else { return Ok(()) };
        if !self.has_unlisted_v1 {
            return Ok(());
        }
        let own = Own::read()?;
        let group = |hierarchy: &Hierarchy| Group {
            controllers: hierarchy.controllers.clone(),
            mount: hierarchy.mount.clone(),
            path: own.place_in(hierarchy).join(name),
            parents: 0,
            joined: false,
        };
        self.v1 = Host::detect()?.v1.iter().map(group).collect();
        self.has_unlisted_v1 = false;
        Ok(())
    }

    /// The group that counts for tracking: v2 where there is one.
    pub(super) fn tracker(&self) -> Option<&Group> {
        let joined = || self.v1.iter().filter(|group| group.joined);
        self.v2.as_ref().or_else(|| joined().find(|group| group.has("freezer"))).or_else(|| joined().next())
    }

    pub(super) fn v1_group(&self, controller: &str) -> Option<&Group> {
        self.v1.iter().find(|group| group.has(controller))
    }

    /// The v1 group that a controller lives in and the container is in.
    pub(super) fn joined(&self, controller: &str) -> Option<&Group> {
        self.v1_group(controller).filter(|group| group.joined)
    }

    /// All groups that the container is in, v2 first.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.v2.iter().chain(self.v1.iter().filter(|group| group.joined))
    }

    /// The v2 group, if the host has `controller` there and not in v1.
    pub(super) fn v2_home(&self, controller: Controller) -> Option<&Group> {
        self.v2.as_ref().filter(|_| self.v1_group(controller.v1_name()).is_none())
    }

    /// The v2 group's directory, for tools.
    pub fn v2_dir(&self) -> Option<PathBuf> {
        self.v2.as_ref().map(Group::dir)
    }

    pub(super) fn is_v2_alone(&self) -> bool {
        self.v2.is_some() && self.v1.is_empty() && !self.has_unlisted_v1
    }

    /// What the container's mount of type `cgroup` shows.
    pub fn view(&self) -> View {
        if let Some(view) = &self.callers {
            return view.clone();
        }
        let shown = |group: &Group| group.shown(group.dir());
        View {
            unified: self.is_v2_alone(),
            hierarchies: self.groups().map(shown).collect(),
            leaf: self.v2_dir(),
        }
    }

    /// Where below the container's v2 group a process of it is, as [`Self::open`] takes it: a container that has
    /// groups of its own may hold no process in its outermost one.
    pub fn place_of(&self, pid: i32) -> Result<Option<String>> {
        let Some(group) = &self.v2 else { return Ok(None) };
        let place = v2_place(pid)?;
        let below = place.strip_prefix(&group.path).ok().and_then(Path::to_str);
        Ok(below.filter(|below| !below.is_empty()).map(str::to_owned))
    }

    pub fn is_none(&self) -> bool {
        self.tracker().is_none()
    }
}

/// The v2 group of a process, below the root.
pub(super) fn v2_place(pid: i32) -> Result<PathBuf> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text = files::read(&path).map_err(Error::path("read", path))?;
    Ok(text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().into())
}

/// Whether the path is absolute, and its names as a relative path.
pub(super) fn clean(field: &str, text: &str) -> Result<(bool, PathBuf)> {
    let refuse = |value: String, expected: &str| Err(Error::invalid(field, value, expected));
    if text.len() > MAX_PATH {
        return refuse(format!("{} bytes", text.len()), "at most 3072 bytes");
    }
    if text.chars().any(char::is_control) {
        return refuse(format!("{text:?}"), "a path without control characters");
    }
    let mut path = PathBuf::new();
    for component in Path::new(text).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) if name.as_bytes().len() <= MAX_NAME => path.push(name),
            Component::Normal(name) => {
                return refuse(format!("a name of {} bytes", name.as_bytes().len()), "at most 255 bytes");
            }
            Component::ParentDir | Component::Prefix(_) => {
                return refuse(format!("{text:?}"), "a path without ..");
            }
        }
    }
    if path.as_os_str().is_empty() {
        return refuse(format!("{text:?}"), "a group below the root");
    }
    Ok((text.starts_with('/'), path))
}

/// How many of the parents of `base/path`, below `base`, do not exist.
fn missing_parents(base: &Path, path: &Path) -> usize {
    let parents = path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty());
    parents.take_while(|parent| !base.join(parent).exists()).count()
}

#[cfg(test)]
mod tests;
