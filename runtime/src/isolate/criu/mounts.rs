//! Mounts that come from outside the container: criu stores no content of theirs, but a name, and is told at restore
//! what has that name. The names are runc's, so that either can restore what the other has dumped.

use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};

use super::stage::Stage;
use crate::Result;
use crate::bundle::plan::{Mount, Plan, Source};
use crate::isolate::cgroup_view::View;
use crate::isolate::tree::{Tree, is_directory};

/// The name of what covers every masked file.
const NULL: &str = "/dev/null";

/// A mount's name: its destination.
pub(super) fn name(mount: &Mount) -> PathBuf {
    let names = Path::new(&mount.destination).components();
    names
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .fold("/".into(), |path: PathBuf, part| path.join(part))
}

/// (mount point, name). `tree`: the root of the running container.
pub fn at_dump(plan: &Plan, view: &View, tree: &Tree) -> Vec<(PathBuf, PathBuf)> {
    // What is not there any more is no mount.
    let resolved = |name: PathBuf| Some((resolve(tree, &name)?, name));
    let mounts = named(plan, view).into_iter().filter_map(|(name, _)| resolved(name));
    let masked = plan.init.masked_paths.iter().filter_map(|path| {
        let found = tree.find(path).ok()?;
        let is_file = !is_directory(std::os::fd::AsFd::as_fd(&found)).ok()?;
        is_file.then(|| Some((link(&found)?, PathBuf::from(NULL)))).flatten()
    });
    mounts.chain(masked).collect()
}

/// (name, source on the host).
pub fn at_restore(plan: &Plan, view: &View, stage: &Stage) -> Vec<(PathBuf, PathBuf)> {
    let null = (!plan.init.masked_paths.is_empty()).then(|| (NULL.into(), stage.null()));
    let mounts = named(plan, view).into_iter().map(|(name, source)| match source {
        Outside::Bind(number) => (name, stage.bind(number)),
        Outside::Path(path) => (name, path),
    });
    mounts.chain(null).collect()
}

enum Outside {
    Bind(usize),
    Path(PathBuf),
}

fn named(plan: &Plan, view: &View) -> Vec<(PathBuf, Outside)> {
    let mut list = Vec::new();
    for mount in &plan.init.mounts {
        match mount.source {
            Source::Bind(number) => list.push((name(mount), Outside::Bind(number))),
            // With a namespace of its own it is a file system that criu knows; else a bind mount of the container's
            // groups, see `cgroup_view`.
            Source::Cgroup if !plan.init.new_cgroup_namespace => match (&view.leaf, view.unified) {
                (Some(leaf), true) => list.push((name(mount), Outside::Path(leaf.clone()))),
                _ => list.extend(
                    view.hierarchies
                        .iter()
                        .map(|h| (name(mount).join(&h.name), Outside::Path(h.leaf.clone()))),
                ),
            },
            Source::Cgroup | Source::New(..) | Source::Inside(_) => {}
        }
    }
    let devices = plan.init.devices.iter().filter(|_| plan.init.user_namespace);
    list.extend(
        devices.map(|device| (device.path.clone().into(), Outside::Path(device.path.clone().into()))),
    );
    list
}

fn resolve(tree: &Tree, name: &Path) -> Option<PathBuf> {
    link(&tree.find(name).ok()?)
}

/// Where a descriptor is, in its own mount namespace.
fn link(fd: &impl AsRawFd) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()
}

/// As criu wants it told.
pub fn text(path: &Path) -> Result<String> {
    crate::bundle::process::text(path, "path of a mount")
}
