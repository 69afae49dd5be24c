//! Id mappings: of a container's user namespace, and of mounts.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::bundle::plan::IdMap;
use crate::sys::clone::{Request, spawn};
use crate::{Error, Result};

/// Writes the mappings of a new user namespace. An ordinary user may map only itself; for more, the setuid helpers
/// of shadow-utils look into /etc/subuid and /etc/subgid.
pub fn write(pid: Pid, uids: &[IdMap], gids: &[IdMap]) -> Result<()> {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        write_map(pid, "gid_map", gids)?;
        return write_map(pid, "uid_map", uids);
    }
    let gid = rustix::process::getegid();
    let itself = |maps: &[IdMap], id: u32| matches!(maps, [(_, host, 1)] if *host == id);
    if itself(uids, uid.as_raw()) && itself(gids, gid.as_raw()) {
        let path = proc_file(pid, "setgroups");
        std::fs::write(&path, "deny").map_err(Error::path("write", &path))?;
        write_map(pid, "gid_map", gids)?;
        return write_map(pid, "uid_map", uids);
    }
    helper("newgidmap", pid, gids)?;
    helper("newuidmap", pid, uids)
}

fn proc_file(pid: Pid, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{name}", pid.as_raw_nonzero()))
}

fn write_map(pid: Pid, name: &str, maps: &[IdMap]) -> Result<()> {
    let path = proc_file(pid, name);
    let mut text = String::new();
    for (inside, outside, size) in maps {
        let _ = writeln!(text, "{inside} {outside} {size}");
    }
    std::fs::write(&path, text).map_err(Error::path("write", &path))
}

fn helper(program: &'static str, pid: Pid, maps: &[IdMap]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(pid.as_raw_nonzero().to_string());
    for (inside, outside, size) in maps {
        command.args([inside, outside, size].map(u32::to_string));
    }
    let output = command.output().map_err(Error::path("execute (package uidmap)", program))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Init { step: program.to_owned(), message })
}

/// A user namespace with these mappings, to map a mount by (mount_setattr(2), MOUNT_ATTR_IDMAP).
pub fn user_namespace(uids: &[IdMap], gids: &[IdMap]) -> Result<OwnedFd> {
    let flags = libc::CLONE_NEWUSER as u64;
    // It only lives until its namespace is held by descriptor.
    let child = spawn(Request { flags, cgroup: None, vfork: false }, || {
        if rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_ok() {
            rustix::event::pause();
        }
        1
    });
    let child = child.map_err(Error::sys("clone3 for an id-mapped mount"))?;
    let opened = write(child.pid, uids, gids).and_then(|()| {
        let path = proc_file(child.pid, "ns/user");
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::path("open", &path))
    });
    let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
    let _ = waitid(WaitId::Pid(child.pid), WaitIdOptions::EXITED);
    opened
}
