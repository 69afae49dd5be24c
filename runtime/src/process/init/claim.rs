//! A parked sandbox is claimed: what the launch asks for is applied, and looked at from inside, before the last steps
//! that every container takes.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chownat, fstat, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

use super::super::channel::{self, ToInit};
use super::{Failure, create, step};
use crate::bundle::plan::{Init, Mount, Source};
use crate::bundle::process::Process;
use crate::isolate::cgroup_view::View;
use crate::isolate::tree::Tree;
use crate::isolate::{mounts, rights, terminal};
use crate::pool::claim::{Claim, Inherited, SECRET_LIMIT, SECRETS};
use crate::sys::fd::Done;
use crate::sys::mount::{self as sys, Attr};
use crate::{Error, Result};

/// Waits for the claim and applies it. Its report socket replaces the one of whoever parked us, to whom nothing is
/// owed any more. Without a claim the stream ends, and we do.
pub(super) fn take(
    plan: &mut Init,
    tree: Option<&Tree>,
    report: &mut OwnedFd,
) -> Result<(i32, Option<terminal::Pty>), Failure> {
    let received =
        channel::receive::<ToInit>(report.as_fd()).map_err(super::at("claim", "receive the claim"))?;
    let Some((ToInit::Claim { pid, claim }, fds)) = received else { crate::sys::clone::exit_now(0) };
    if fds.len() != claim.descriptors() {
        return Err(("claim", Error::InitGone));
    }
    let mut fds = fds.into_iter();
    if let Some(socket) = fds.next() {
        *report = socket;
    }
    let reset = crate::sys::process::reset_signals(claim.ignored_signals);
    step("claim: signals", reset.map_err(Error::sys("rt_sigaction")))?;
    if claim.has_streams() {
        step("claim: streams", streams(&mut fds))?;
    }
    claim.merge(&mut plan.process);
    step("claim: hostname", hostname(&claim))?;
    let Some(tree) = tree else { return Ok((pid, None)) };
    let mounted: Vec<OwnedFd> = fds.by_ref().take(claim.mounts.len()).collect();
    step("claim: mounts", mount_all(&claim, tree, &mounted))?;
    let files = fds.by_ref().take(claim.secrets.len()).collect();
    step("claim: secrets", secrets(plan, &claim, tree, files))?;
    if claim.network {
        step("claim: network", network(fds.next()))?;
    }
    if let Some(inherited) = &claim.inherited {
        step("claim: inherited", inherit(inherited, &plan.process))?;
    }
    let pty = step("claim: terminal", create::console(plan, tree, report))?;
    Ok((pid, pty))
}

fn streams(fds: &mut impl Iterator<Item = OwnedFd>) -> Result<()> {
    let fail = Error::sys("dup2 of a standard stream");
    let (Some(input), Some(output), Some(error)) = (fds.next(), fds.next(), fds.next()) else {
        return Err(Error::InitGone);
    };
    rustix::stdio::dup2_stdin(&input)
        .and_then(|()| rustix::stdio::dup2_stdout(&output))
        .and_then(|()| rustix::stdio::dup2_stderr(&error))
        .map_err(fail)
}

fn hostname(claim: &Claim) -> Result<()> {
    let Some(name) = &claim.hostname else { return Ok(()) };
    rustix::system::sethostname(name.as_bytes()).map_err(Error::path("sethostname", name))?;
    let now = rustix::system::uname();
    if now.nodename().to_bytes() == name.as_bytes() { Ok(()) } else { Err(unlike("--hostname", name)) }
}

/// What was asked for is not what is there.
fn unlike(field: &str, value: &str) -> Error {
    Error::invalid(field, value, "to be in force, which it is not")
}

fn mount_all(claim: &Claim, tree: &Tree, mounted: &[OwnedFd]) -> Result<()> {
    if claim.mounts.is_empty() {
        return Ok(());
    }
    let done = Done::default();
    let context = mounts::Context {
        tree,
        binds: mounted,
        cgroups: &View::default(),
        private_cgroup: true,
        label: None,
        done: &done,
        late: RefCell::default(),
        fresh: RefCell::default(),
    };
    for (index, mount) in claim.mounts.iter().enumerate() {
        let source = Source::Bind(index);
        let planned =
            Mount { destination: mount.destination.clone(), source, options: mount.options.clone() };
        mounts::mount(&context, &planned)?;
        let there = tree.find(&mount.destination).map_err(Error::path("open", &mount.destination))?;
        if !same(there.as_fd(), mounted[index].as_fd())? {
            return Err(unlike("--mount dst", &mount.destination));
        }
    }
    Ok(())
}

fn same(a: std::os::fd::BorrowedFd<'_>, b: std::os::fd::BorrowedFd<'_>) -> Result<bool> {
    let stat = |fd| fstat(fd).map_err(Error::sys("fstat"));
    let (a, b) = (stat(a)?, stat(b)?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// Files of the user's own in a file system of their own, which then turns read-only.
fn secrets(plan: &Init, claim: &Claim, tree: &Tree, files: Vec<OwnedFd>) -> Result<()> {
    if claim.secrets.is_empty() {
        return Ok(());
    }
    let fail = |call| Error::path(call, SECRETS);
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail("fsopen"))?;
    for (key, value) in [("mode", "0700"), ("size", "70m"), ("nr_inodes", "100")] {
        fsconfig_set_string(context.as_fd(), key, value).map_err(fail("fsconfig"))?;
    }
    fsconfig_create(context.as_fd()).map_err(fail("fsconfig"))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let made =
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(fail("fsmount"))?;
    for (name, source) in claim.secrets.iter().zip(files) {
        write_secret(plan, &made, name, File::from(source))?;
    }
    own(plan, &made).map_err(Error::path("chown", SECRETS))?;
    let target = tree.make_directory(SECRETS).map_err(Error::path("make mount point", SECRETS))?;
    mounts::attach(&made, target.as_fd()).map_err(Error::path("mount on", SECRETS))?;
    let read_only = Attr { set: sys::RDONLY, ..Attr::default() };
    sys::set_attr(made.as_fd(), c"", false, read_only).map_err(Error::path("make read-only", SECRETS))?;
    let there = tree.find(SECRETS).map_err(Error::path("open", SECRETS))?;
    if same(there.as_fd(), made.as_fd())? { Ok(()) } else { Err(unlike("--secret", SECRETS)) }
}

fn write_secret(plan: &Init, directory: &OwnedFd, name: &str, mut source: File) -> Result<()> {
    let path = format!("{SECRETS}/{name}");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target =
        openat(directory, name, flags, Mode::from_raw_mode(0o400)).map_err(Error::path("create", &path))?;
    own(plan, &target).map_err(Error::path("chown", &path))?;
    // A descriptor shares its offset with whoever sent it.
    io::Seek::rewind(&mut source).map_err(Error::path("read the source of", &path))?;
    let mut text = Vec::new();
    Read::take(&mut source, SECRET_LIMIT + 1)
        .read_to_end(&mut text)
        .map_err(Error::path("read the source of", &path))?;
    if text.len() as u64 > SECRET_LIMIT {
        return Err(Error::invalid("--secret", name, "at most 1 MiB"));
    }
    File::from(target).write_all(&text).map_err(Error::path("write", &path))
}

/// By the empty path: the descriptor of a mount is no open file.
fn own(plan: &Init, fd: &OwnedFd) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(plan.process.uid), Gid::from_raw(plan.process.gid));
    chownat(fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}

/// The sandbox's own goes with its last process, which is this one.
fn network(namespace: Option<OwnedFd>) -> Result<()> {
    let namespace = namespace.ok_or(Error::InitGone)?;
    setns(&namespace, CloneFlags::CLONE_NEWNET)
        .map_err(Error::sys("enter the network namespace of --network"))
}

/// What the bundle sets comes later, and counts.
fn inherit(inherited: &Inherited, process: &Process) -> Result<()> {
    rights::set_limits(&inherited.rlimits)?;
    let niceness = inherited.niceness;
    rustix::process::setpriority_process(None, niceness)
        .map_err(Error::path("setpriority", niceness.to_string()))?;
    if process.oom_score_adj.is_some() {
        return Ok(());
    }
    let path = "/proc/self/oom_score_adj";
    std::fs::write(path, inherited.oom_score_adj.to_string()).map_err(Error::path("write", path))
}
