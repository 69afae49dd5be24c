//! What a container sees of the cgroup hierarchies: the mount of type `cgroup`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::mount::OpenTreeFlags;
use serde::{Deserialize, Serialize};

use super::mounts::{Context, attach, new_filesystem};
use crate::sys::mount::{self as sys, Attr};
use crate::{Error, Result};

/// The hierarchies of a host, as one container is shown them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Version 2 alone, at the mount itself.
    pub unified: bool,
    /// Otherwise one directory each, on a tmpfs.
    pub hierarchies: Vec<Hierarchy>,
    /// The container's own directory in version 2, shown by bind where it has no cgroup namespace of its own.
    pub leaf: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Name of the directory: `memory`, `cpu,cpuacct`, `systemd`, `unified`.
    pub name: String,
    /// Parameters of the cgroup file system; none: version 2.
    pub parameters: Vec<String>,
    /// The container's own directory on the host.
    pub leaf: PathBuf,
}

/// The detached mount for a destination of type `cgroup`. Without a cgroup namespace of its own a container sees its
/// own directory only.
pub fn mount(context: &Context<'_>, attr: Attr) -> Result<OwnedFd> {
    let view = context.cgroups;
    if view.unified {
        return single("cgroup2", &[], context, view.leaf.as_ref(), attr.set);
    }
    let top = new_filesystem(
        "tmpfs",
        "tmpfs",
        &[("mode".into(), Some("755".into()))],
        &[],
        attr.set & !sys::RDONLY,
        context.done,
    )?;
    Ok(top)
}

/// Fills the tmpfs of [`mount`], which is attached by now: a detached mount takes no further mounts.
pub fn fill(context: &Context<'_>, top: BorrowedFd<'_>, attr: Attr) -> Result<()> {
    let view = context.cgroups;
    if view.unified {
        return Ok(());
    }
    let directory = Mode::from_raw_mode(0o755);
    for hierarchy in &view.hierarchies {
        let call = Error::path("show cgroup", &hierarchy.name);
        mkdirat(top, &hierarchy.name, directory).map_err(call)?;
        let target = openat(top, &hierarchy.name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let target = target.map_err(Error::path("open", &hierarchy.name))?;
        let kind = if hierarchy.parameters.is_empty() { "cgroup2" } else { "cgroup" };
        let mount = single(kind, &hierarchy.parameters, context, Some(&hierarchy.leaf), attr.set)?;
        attach(&mount, target.as_fd()).map_err(Error::path("attach cgroup", &hierarchy.name))?;
        [mount, target].into_iter().for_each(|fd| context.done.push(fd));
        for alias in hierarchy.name.split(',').filter(|alias| *alias != hierarchy.name) {
            symlinkat(&hierarchy.name, top, alias).map_err(Error::path("symlink", alias))?;
        }
    }
    if attr.set & sys::RDONLY != 0 {
        let read_only = Attr { set: sys::RDONLY, ..Attr::default() };
        sys::set_attr(top, c"", false, read_only).map_err(Error::sys("make the cgroup mount read-only"))?;
    }
    Ok(())
}

fn single(
    kind: &str,
    parameters: &[String],
    context: &Context<'_>,
    leaf: Option<&PathBuf>,
    attr: u64,
) -> Result<OwnedFd> {
    let parameters: Vec<_> = parameters
        .iter()
        .map(|parameter| match parameter.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (parameter.clone(), None),
        })
        .collect();
    match leaf {
        Some(leaf) if !context.private_cgroup => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let mount =
                rustix::mount::open_tree(CWD, leaf, flags).map_err(Error::path("clone mount", leaf))?;
            let attr = Attr { set: attr, ..Attr::default() };
            sys::set_attr(mount.as_fd(), c"", false, attr).map_err(Error::path("mount_setattr", leaf))?;
            Ok(mount)
        }
        _ => new_filesystem(kind, "cgroup", &parameters, &[], attr, context.done),
    }
}
