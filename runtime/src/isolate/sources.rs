//! Detached mounts of everything that comes from the host, opened with the caller's rights before anything else
//! happens: from here on nothing of the host's is named by path.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::idmap;
use crate::bundle::plan::{Bind, MapBy, Plan};
use crate::sys::mount::{self as sys, Attr};
use crate::{Error, Result};

#[derive(Debug)]
pub struct Sources {
    /// None without a mount namespace.
    pub root: Option<OwnedFd>,
    pub binds: Vec<OwnedFd>,
}

impl Sources {
    pub fn open(plan: &Plan) -> Result<Self> {
        let path = &plan.host.rootfs;
        if !plan.init.mount_namespace {
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
        let shared = plan.init.root_propagation.is_some_and(|(kind, _)| kind == libc::MS_SHARED);
        let (propagation, recursive) =
            if shared { (libc::MS_PRIVATE, false) } else { (libc::MS_SLAVE, true) };
        set_propagation(&root, path, propagation, recursive)?;
        let binds = plan.host.binds.iter().map(clone_bind).collect::<Result<_>>()?;
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
