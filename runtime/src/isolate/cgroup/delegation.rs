//! What of the control groups is delegated to an ordinary user: a group whose directory and `cgroup.procs` it may
//! write (systemd's Delegate=, or a chown by root). In v2 a process may be put only where the nearest group above both
//! its old and its new place is delegated as well.

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::host::{Hierarchy, Own};
use super::limits;
use super::placement::{Group, Placement};
use crate::isolate::cgroup_view::View;
use crate::observe::process::is_rootless;
use crate::{Error, Result};

impl Placement {
    pub(super) fn is_rootless(&self) -> bool {
        self.rootless.unwrap_or_else(is_rootless)
    }

    /// Takes the groups out that are not delegated; the note tells which, where it is no failure.
    pub(super) fn leave_out(&mut self, resources: Option<&LinuxResources>) -> Result<Option<String>> {
        let own = Own::read()?;
        let unified = self.is_v2_alone();
        let forbidden = |group: &Group| !is_delegated(group, &own);
        let mut left_out = Vec::new();
        if let Some(group) = self.v2.take_if(|group| forbidden(group)) {
            left_out.push(group);
        }
        for group in self.v1.iter_mut().filter(|group| group.joined && forbidden(group)) {
            group.joined = false;
            left_out.push(group.clone());
        }
        let Some(first) = left_out.first() else { return Ok(None) };
        let none_left = self.groups().next().is_none();
        let refused = |what: String| {
            let source = std::io::ErrorKind::PermissionDenied.into();
            Err(Error::Refused {
                what: format!("{what}: {} is not delegated to the caller", first.dir().display()),
                source,
            })
        };
        for controller in resources.map(limits::needed).unwrap_or_default() {
            let name = controller.v1_name();
            let was_v2 =
                left_out.iter().any(|group| group.controllers.is_empty()) && self.v1_group(name).is_none();
            if was_v2 || left_out.iter().any(|group| group.has(name)) {
                return refused(format!(
                    "cannot set {name} limit: container could not join or create cgroup"
                ));
            }
        }
        if none_left && self.given {
            return refused("linux.cgroupsPath".to_owned());
        }
        let what =
            if none_left { "container without control groups" } else { "container in fewer control groups" };
        if none_left {
            *self = Self::none();
            self.callers = Some(callers(&left_out, &own, unified));
        }
        Ok(Some(format!("{what}: {} is not delegated to the caller", first.dir().display())))
    }
}

fn is_delegated(group: &Group, own: &Own) -> bool {
    let dir = group.dir();
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(&group.mount);
    let is_v2 = group.controllers.is_empty();
    if !may_write(there)
        || (there == dir && !may_write(&dir.join(if is_v2 { "cgroup.procs" } else { "tasks" })))
    {
        return false;
    }
    !is_v2 || may_move_into(&common(&group.mount, &group.path, &own.place_in(&hierarchy(group))))
}

fn hierarchy(group: &Group) -> Hierarchy {
    Hierarchy { controllers: group.controllers.clone(), mount: group.mount.clone(), root: "/".into() }
}

/// The caller's own places instead of those that the container may not have.
fn callers(groups: &[Group], own: &Own, unified: bool) -> View {
    let place =
        |group: &Group| Some(group.mount.join(own.place_in(&hierarchy(group)))).filter(|dir| dir.exists());
    View {
        unified,
        hierarchies: groups.iter().filter_map(|group| Some(group.shown(place(group)?))).collect(),
        leaf: groups.iter().find(|group| group.controllers.is_empty()).and_then(place),
    }
}

/// The nearest group above two.
fn common(mount: &Path, one: &Path, other: &Path) -> PathBuf {
    let shared = one.components().zip(other.components()).take_while(|(one, other)| one == other);
    shared.fold(mount.to_owned(), |path, (name, _)| path.join(name))
}

/// Whether the caller may put processes into a group.
pub(super) fn may_move_into(group: &Path) -> bool {
    may_write(&group.join("cgroup.procs"))
}

fn may_write(path: &Path) -> bool {
    accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_common_group_is_found() {
        let common = |one: &str, other: &str| common("/m".as_ref(), one.as_ref(), other.as_ref());
        assert_eq!(common("a/b/c", "a/b/d/e"), Path::new("/m/a/b"));
        assert_eq!(common("a", "b"), Path::new("/m"));
        assert_eq!(common("a/b", "a/b"), Path::new("/m/a/b"));
        assert_eq!(common("ab", "a"), Path::new("/m"));
    }
}
