//! Detached mounts of everything that comes from the host, opened with the caller's rights before anything else
//! happens: from here on nothing of the host's is named by path.
//!
//! An ordinary user may clone mounts only in a mount namespace of its own user namespace: there the container's
//! first process opens them, which has the caller's ids until then, before it is anything else.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::LinuxNamespaceType;
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::idmap;
use crate::bundle::plan::{Bind, Host, Init, MapBy};
use crate::sys::mount::{self as sys, Attr};
use crate::{Error, Result};

#[derive(Debug)]
pub struct Sources {
    /// None without a mount namespace.
    pub root: Option<OwnedFd>,
    pub binds: Vec<OwnedFd>,
}

impl Sources {
    /// None where the caller may not: [`Self::open`] is for its child then.
    pub fn open_ahead(host: &Host, init: &Init) -> Result<Option<Self>> {
        match Self::open(host, init) {
            Err(Error::Path { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => {
                let owned = LinuxNamespaceType::User;
                let new = host.new_namespaces & owned as u64 != 0;
                if new || host.joined.iter().any(|(kind, _)| *kind == owned) {
                    return Ok(None);
                }
                let expected = "a user namespace (rootless container requires user namespaces), or root";
                Err(Error::invalid("linux.namespaces", "no user namespace", expected))
            }
            result => result.map(Some),
        }
    }

    /// As they come from the child, root first.
    pub fn of(init: &Init, fds: Vec<OwnedFd>) -> Self {
        let mut fds = fds.into_iter();
        let root = init.mount_namespace.then(|| fds.next()).flatten();
        Self { root, binds: fds.collect() }
    }

    pub fn open(host: &Host, init: &Init) -> Result<Self> {
        let path = &host.rootfs;
        if !init.mount_namespace {
            return Ok(Self { root: None, binds: Vec::new() });
        }
        let root = clone_tree(path, true).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => Error::Refused {
                what: format!("root.path: {}: expected an existing directory", path.display()),
                source: error,
            },
            _ => Error::path("clone root file system", path)(error),
        })?;
        if !super::tree::is_directory(root.as_fd()).map_err(Error::path("stat", path))? {
            return Err(Error::invalid("root.path", path.display().to_string(), "a directory"));
        }
        // As in runc: cut off from the caller's mounts, unless the config wants them shared. The root itself is
        // never shared by now, for pivot_root(2) refuses that; `rootfs::finish` gives it what was asked for.
        let shared = init.root_propagation.is_some_and(|(kind, _)| kind == libc::MS_SHARED);
        let (propagation, recursive) =
            if shared { (libc::MS_PRIVATE, false) } else { (libc::MS_SLAVE, true) };
        set_propagation(&root, path, propagation, recursive)?;
        let binds = host.binds.iter().map(clone_bind).collect::<Result<_>>()?;
        Ok(Self { root: Some(root), binds })
    }
}

fn clone_bind(bind: &Bind) -> Result<OwnedFd> {
    let userns = bind.idmap.as_ref().map(|(by, recursive)| {
        let userns = match by {
            MapBy::New(uids, gids) => idmap::user_namespace(uids, gids)?,
            MapBy::Joined(path) => File::open(path).map_err(Error::path("open namespace", path))?.into(),
        };
        Ok::<_, Error>((userns, *recursive))
    });
    let userns = userns.transpose()?;
    let Some(path) = &bind.path else { return userns.map(|(fd, _)| fd).ok_or(Error::InitGone) };
    let tree = clone_tree(path, bind.recursive).map_err(Error::path("open mount source", path))?;
    let mapped = userns.as_ref().map(|(fd, recursive)| (fd.as_fd(), *recursive));
    prepare_bind(&tree, path, bind.propagation, mapped)?;
    Ok(tree)
}

/// Gives the detached copy its propagation and its id mapping.
pub fn prepare_bind(
    tree: &OwnedFd,
    path: &Path,
    propagation: u64,
    idmap: Option<(BorrowedFd<'_>, bool)>,
) -> Result<()> {
    if propagation != 0 {
        set_propagation(tree, path, propagation, true)?;
    }
    let Some((userns, recursive)) = idmap else { return Ok(()) };
    let number = u64::from(userns.as_raw_fd().unsigned_abs());
    let attr = Attr { set: sys::IDMAP, userns: number, ..Attr::default() };
    sys::set_attr(tree.as_fd(), c"", recursive, attr).map_err(Error::path("id-map the mount of", path))
}

fn set_propagation(tree: &OwnedFd, path: &Path, propagation: u64, recursive: bool) -> Result<()> {
    let attr = Attr { propagation, ..Attr::default() };
    sys::set_attr(tree.as_fd(), c"", recursive, attr).map_err(Error::path("set propagation of", path))
}

fn clone_tree(path: &Path, recursive: bool) -> std::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(CWD, path, flags)?)
}
