//! The mounts of a container, by the new mount API: each is made detached, given its attributes, and attached to
//! a destination that was resolved inside the root and is held by descriptor.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::tree::{Tree, is_directory};
use super::{cgroup_view, copy_up, labels, sources};
use crate::bundle::mount_options::Options;
use crate::bundle::plan::{Inside, Mount, Source};
use crate::sys::fd::Done;
use crate::sys::mount::{self as sys, Attr};
use crate::{Error, Result};

/// What mounts of one container have in common.
#[derive(Debug)]
pub struct Context<'a> {
    pub tree: &'a Tree,
    /// Detached copies of the bind sources, opened with the caller's rights.
    pub binds: &'a [OwnedFd],
    pub cgroups: &'a cgroup_view::View,
    pub private_cgroup: bool,
    pub label: Option<&'a str>,
    pub done: &'a Done,
    /// Of each tmpfs that is to be read-only: once all mounts and devices are made, it is.
    pub late: RefCell<Vec<OwnedFd>>,
    /// The tmpfs made last and where: mount points right below it are made by its descriptor, unlooked-for.
    pub fresh: RefCell<Option<(PathBuf, OwnedFd)>>,
}

/// Makes one mount. The descriptor stays on it.
pub fn mount(context: &Context<'_>, mount: &Mount) -> Result<()> {
    one(context, mount).map_err(|error| error.at(format!("mount {}", mount.destination)))
}

fn one(context: &Context<'_>, mount: &Mount) -> Result<()> {
    let destination = Path::new(&mount.destination);
    let fail = |call: &'static str| Error::path(call, destination);
    let options = &mount.options;
    let mut new = None;
    let (made, target) = match &mount.source {
        Source::Bind(_) | Source::Inside(_) => {
            let source = match &mount.source {
                Source::Bind(index) => &context.binds[*index],
                Source::Inside(inside) => &*new.insert(clone_inside(context, inside)?),
                _ => return Err(Error::InitGone),
            };
            let directory = is_directory(source.as_fd()).map_err(fail("stat the source of"))?;
            let tree = context.tree;
            let target =
                if directory { tree.make_directory(destination) } else { tree.make_file(destination) };
            (source, target.map_err(fail("make mount point"))?)
        }
        Source::Cgroup => {
            let target = context.tree.make_directory(destination).map_err(fail("make mount point"))?;
            let made = cgroup_view::mount(context, options.attr())?;
            (&*new.insert(made), target)
        }
        Source::New(kind, source) => {
            // Asked only of what looks at it: most destinations are there, or their mode is given.
            let looks = kind == "tmpfs" && (options.tmpcopyup || !has_mode(options));
            let covers = looks && context.tree.find(destination).is_ok();
            let target = match below_fresh(context, destination) {
                Some(target) => target,
                None => mount_point(context.tree, kind, destination)?,
            };
            let made = filesystem(context, kind, source, mount, covers.then(|| target.as_fd()))?;
            (&*new.insert(made), target)
        }
    };
    give_attributes(made.as_fd(), options).map_err(fail("set attributes of"))?;
    attach(made, target.as_fd()).map_err(fail("mount on"))?;
    if mount.source == Source::Cgroup {
        cgroup_view::fill(context, made.as_fd(), options.attr())?;
    }
    if waits(mount) {
        let attached = made.try_clone().map_err(fail("dup the mount of"))?;
        context.late.borrow_mut().push(attached);
    }
    for (propagation, recursive) in &options.propagation {
        let attr = Attr { propagation: *propagation, ..Attr::default() };
        sys::set_attr(made.as_fd(), c"", *recursive, attr).map_err(fail("set propagation of"))?;
    }
    context.done.push(target);
    match (&mount.source, new) {
        (Source::New(kind, _), Some(new))
            if kind == "tmpfs" && !options.tmpcopyup && context.fresh.borrow().is_none() =>
        {
            context.fresh.replace(Some((destination.to_owned(), new)));
        }
        (_, new) => new.into_iter().for_each(|fd| context.done.push(fd)),
    }
    Ok(())
}

/// To a detached mount: a new file system has its own already.
pub fn give_attributes(mount: BorrowedFd<'_>, options: &Options) -> io::Result<()> {
    if options.bind {
        change(mount, options.attr(), false)?;
    }
    change(mount, options.tree_attr(), true)
}

fn clone_inside(context: &Context<'_>, inside: &Inside) -> Result<OwnedFd> {
    let path = Path::new(&inside.path);
    let fail = Error::path("open mount source in the root", path);
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if inside.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let found = context.tree.find(if inside.path.is_empty() { Path::new("/") } else { path });
    let copy = found.and_then(|found| Ok(open_tree(&found, "", flags)?)).map_err(fail)?;
    let idmap = inside.idmap.map(|(index, recursive)| (context.binds[index].as_fd(), recursive));
    sources::prepare_bind(&copy, path, inside.propagation, idmap)?;
    Ok(copy)
}

/// In an empty file system of our own there is nothing to be resolved: the directory is made and opened. None where
/// the destination is elsewhere, or is there already.
fn below_fresh(context: &Context<'_>, destination: &Path) -> Option<OwnedFd> {
    let fresh = context.fresh.borrow();
    let (place, mount) = fresh.as_ref()?;
    let name = destination.strip_prefix(place).ok().filter(|rest| rest.components().count() == 1)?;
    rustix::fs::mkdirat(mount, name, Mode::from_raw_mode(0o755)).ok()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(mount, name, flags, Mode::empty()).ok()
}

/// procfs and sysfs go on an ordinary directory only: a rootfs whose /proc is a symlink would move them
/// (CVE-2019-19921).
fn mount_point(tree: &Tree, kind: &str, destination: &Path) -> Result<OwnedFd> {
    let fail = |call: &'static str| Error::path(call, destination);
    if !matches!(kind, "proc" | "sysfs") {
        return tree.make_directory(destination).map_err(fail("make mount point"));
    }
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let open = || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(tree.root(), destination, flags, Mode::empty(), resolve)
    };
    match open() {
        Err(rustix::io::Errno::NOENT) => {
            tree.make_directory(destination).map_err(fail("make mount point"))?;
            open().map_err(Error::path("open mount point", destination))
        }
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => Err(Error::invalid(
            format!("mount destination of {kind}"),
            destination.display().to_string(),
            "an ordinary directory (filesystem must be mounted on ordinary directory)",
        )),
        result => result.map_err(Error::path("open mount point", destination)),
    }
}

fn has_mode(options: &Options) -> bool {
    options.data.iter().any(|(key, _)| key == "mode")
}

/// `covered`: the directory that a tmpfs takes over from, if it was there before.
fn filesystem(
    context: &Context<'_>,
    kind: &str,
    source: &str,
    mount: &Mount,
    covered: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd> {
    let options = &mount.options;
    let mut data = options.data.clone();
    if let Some(covered) = covered.filter(|_| !has_mode(options)) {
        // The permissions too, as in runc.
        let stat = rustix::fs::fstat(covered).map_err(Error::path("stat", &mount.destination))?;
        let mode = stat.st_mode & 0o7777;
        data.push(("mode".into(), Some(format!("{mode:o}"))));
    }
    if let Some(label) = context.label
        && matches!(kind, "tmpfs" | "devpts")
    {
        data.push(("context".into(), Some(label.to_owned())));
    }
    let mut superblock: Vec<&str> = options.superblock.iter().map(String::as_str).collect();
    // The kernel's own file systems are shared or fresh: there the mount's attribute says all.
    let virtual_fs = matches!(kind, "proc" | "sysfs" | "tmpfs" | "devpts" | "mqueue");
    if options.set & sys::RDONLY != 0 && !virtual_fs {
        superblock.push("ro");
    }
    let attr = if waits(mount) { options.set & !sys::RDONLY } else { options.set };
    let made = new_filesystem(kind, source, &data, &superblock, attr, context.done)?;
    if let Some(covered) = covered.filter(|_| options.tmpcopyup) {
        copy_up::copy(covered, made.as_fd()).map_err(Error::path("copy up", &mount.destination))?;
    }
    // The IPC namespace's own, made before it is mounted: it takes no such option any more.
    if let Some(label) = context.label.filter(|_| kind == "mqueue") {
        labels::label(made.as_fd(), label).map_err(Error::path("label", &mount.destination))?;
    }
    Ok(made)
}

/// A read-only tmpfs is filled first: by copies, by mount points, by devices.
fn waits(mount: &Mount) -> bool {
    matches!(&mount.source, Source::New(kind, _) if kind == "tmpfs") && mount.options.set & sys::RDONLY != 0
}

pub fn make_readonly(late: &[OwnedFd]) -> Result<()> {
    let attr = Attr { set: sys::RDONLY, ..Attr::default() };
    late.iter()
        .try_for_each(|mount| sys::set_attr(mount.as_fd(), c"", false, attr))
        .map_err(Error::sys("make a tmpfs read-only"))
}

/// A detached mount of a new file system. `attr`: MOUNT_ATTR_*.
pub fn new_filesystem(
    kind: &str,
    source: &str,
    data: &[(String, Option<String>)],
    superblock: &[&str],
    attr: u64,
    done: &Done,
) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(Error::path("mount type", kind))?;
    let fail = |what: &str| Error::path("mount option", format!("{kind}: {what}"));
    fsconfig_set_string(&context, "source", source).map_err(fail("source"))?;
    for flag in superblock {
        fsconfig_set_flag(&context, *flag).map_err(fail(flag))?;
    }
    for (key, value) in data {
        match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(&context, key.as_str()),
        }
        .map_err(fail(key))?;
    }
    fsconfig_create(&context).map_err(Error::path("mount", kind))?;
    let attr = MountAttrFlags::from_bits_retain(u32::try_from(attr).unwrap_or(0));
    let made = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attr).map_err(Error::path("fsmount", kind));
    done.push(context);
    made
}

/// Attaches a detached mount to the file or directory behind `target`.
pub fn attach(mount: impl AsFd, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount.as_fd(), "", target, "", flags)?)
}

fn change(mount: BorrowedFd<'_>, attr: Attr, recursive: bool) -> io::Result<()> {
    if attr == Attr::default() { Ok(()) } else { sys::set_attr(mount, c"", recursive, attr) }
}
