//! What criu sees when it restores: the container's root file system, which has to be a mount of its own, and the
//! sources of its bind mounts, in a mount namespace of criu's own. It goes with criu, whoever else dies.
//!
//! criu finds its files by descriptors of ours, and mounts on what it finds there. So we go into that namespace, open
//! them, start criu, and come back.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::mount::{MoveMountFlags, move_mount};

use crate::bundle::plan::{Mount, Plan, Source};
use crate::isolate::mounts::{give_attributes, new_filesystem};
use crate::isolate::paths;
use crate::isolate::sources::Sources;
use crate::isolate::tree::{Tree, is_directory};
use crate::sys::clone::exit_now;
use crate::sys::fd::Done;
use crate::sys::mount::{self as sys, Attr};
use crate::{Error, Result};

const ROOT: &str = "root";
const NULL: &str = "null";

/// Detached mounts, and where criu's own process attaches them, in this order.
#[derive(Debug)]
pub struct Stage {
    mounts: Vec<(OwnedFd, PathBuf)>,
    top: PathBuf,
}

impl Stage {
    /// `top`: an empty directory. Mount points that are missing in the root are made, as `create` would make them.
    pub fn prepare(top: &Path, plan: &Plan, sources: Sources) -> Result<Self> {
        let mode = |mode: &str| ("mode".to_owned(), Some(mode.to_owned()));
        let tmpfs = new_filesystem("tmpfs", "criu", &[mode("755")], &[], 0, &Done::default())?;
        let root = sources
            .root
            .ok_or_else(|| Error::invalid("linux.namespaces", "no mount namespace", "one, for a restore"))?;
        make_mount_points(plan, &root, &sources.binds)?;
        // criu gives the root no attributes, and another mount only where they differ from those of one of the same
        // file system. So what should be read-only is so from the start.
        if plan.init.root_readonly {
            let read_only = Attr { set: sys::RDONLY, ..Attr::default() };
            sys::set_attr(root.as_fd(), c"", false, read_only)
                .map_err(Error::sys("make the root read-only"))?;
        }
        for mount in &plan.init.mounts {
            if let Source::Bind(number) = mount.source {
                let fail = Error::path("set attributes of", &mount.destination);
                give_attributes(sources.binds[number].as_fd(), &mount.options).map_err(fail)?;
            }
        }
        let mut stage = Self { mounts: Vec::new(), top: top.to_owned() };
        let names = [ROOT, NULL].map(str::to_owned).into_iter();
        let names = names.chain((0..sources.binds.len()).map(|number| number.to_string()));
        let mut staged = Vec::new();
        for (name, mount) in names.zip([root, paths::null()?].into_iter().chain(sources.binds)) {
            place_for(&tmpfs, &name, &mount).map_err(Error::path("make", top.join(&name)))?;
            staged.push((mount, top.join(name)));
        }
        stage.mounts.push((tmpfs, top.to_owned()));
        stage.mounts.append(&mut staged);
        Ok(stage)
    }

    pub fn root(&self) -> PathBuf {
        self.top.join(ROOT)
    }

    /// What covers masked files.
    pub fn null(&self) -> PathBuf {
        self.top.join(NULL)
    }

    pub fn bind(&self, index: usize) -> PathBuf {
        self.top.join(index.to_string())
    }

    /// Goes to a new mount namespace, where everything is in its place. This process has a single thread.
    pub fn enter(&self) -> Result<Inside> {
        let fail = |path: &'static str| Error::path("open", path);
        let host = File::open("/proc/self/ns/mnt").map_err(fail("/proc/self/ns/mnt"))?;
        let (root, cwd) = (File::open("/").map_err(fail("/"))?, File::open(".").map_err(fail("."))?);
        unshare(CloneFlags::CLONE_NEWNS).map_err(Error::sys("unshare the mount namespace"))?;
        let inside = Inside { host, root, cwd };
        // What the host mounts still arrives; nothing goes back.
        let slave = Attr { propagation: libc::MS_SLAVE, ..Attr::default() };
        sys::set_attr(CWD, c"/", true, slave).map_err(Error::sys("make criu's mounts slaves"))?;
        for (mount, target) in &self.mounts {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(mount, "", CWD, target, flags).map_err(Error::path("mount for criu", target))?;
        }
        Ok(inside)
    }
}

/// While this process is in criu's mount namespace.
#[derive(Debug)]
pub struct Inside {
    host: File,
    root: File,
    cwd: File,
}

impl Drop for Inside {
    fn drop(&mut self) {
        let back = || -> io::Result<()> {
            setns(&self.host, CloneFlags::CLONE_NEWNS)?;
            rustix::process::fchdir(&self.root)?;
            rustix::process::chroot(".")?;
            Ok(rustix::process::fchdir(&self.cwd)?)
        };
        if back().is_err() {
            // What it would clean up from here on is not what it means.
            exit_now(1);
        }
    }
}

fn place_for(tmpfs: &OwnedFd, name: &str, mount: &OwnedFd) -> io::Result<()> {
    if is_directory(mount.as_fd())? {
        return Ok(mkdirat(tmpfs, name, Mode::from_raw_mode(0o755))?);
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    Ok(openat(tmpfs, name, flags, Mode::from_raw_mode(0o600)).map(drop)?)
}

/// What lies below a bind mount is made in its source, what lies below any other mount is in criu's images.
fn make_mount_points(plan: &Plan, root: &OwnedFd, binds: &[OwnedFd]) -> Result<()> {
    let clone = |fd: &OwnedFd| fd.try_clone().map_err(Error::sys("dup"));
    for (index, mount) in plan.init.mounts.iter().enumerate() {
        let destination = super::mounts::name(mount);
        let below = |over: &&Mount| {
            let over = super::mounts::name(over);
            destination != over && destination.starts_with(over)
        };
        let (tree, path) = match plan.init.mounts[..index].iter().rev().find(below) {
            None => (clone(root)?, destination.clone()),
            Some(over @ Mount { source: Source::Bind(number), .. }) => {
                let path = destination.strip_prefix(super::mounts::name(over)).unwrap_or(&destination);
                (clone(&binds[*number])?, Path::new("/").join(path))
            }
            Some(_) => continue,
        };
        let tree = Tree::new(tree);
        let is_file = match mount.source {
            // Of the latter criu makes the mount; its place is in the root since the container was made.
            Source::Cgroup | Source::Inside(_) => continue,
            Source::Bind(number) => !is_directory(binds[number].as_fd()).map_err(Error::sys("stat"))?,
            Source::New(..) => false,
        };
        let made = if is_file { tree.make_file(&path) } else { tree.make_directory(&path) };
        made.map_err(Error::path("make mount point", &destination))?;
    }
    Ok(())
}
