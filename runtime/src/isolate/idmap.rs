//! Id mappings: of a container's user namespace, and of mounts.

use std::fmt::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::bundle::plan::IdMap;
use crate::observe::process::user_name;
use crate::sys::clone::{Request, spawn};
use crate::sys::fd::close_copy;
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

/// The first range (first id, count) that `/etc/subuid` or `/etc/subgid` grants the caller, by name or number.
pub fn granted(table: &str) -> Option<(u32, u32)> {
    let (name, number) = (user_name(), rustix::process::geteuid().as_raw().to_string());
    let text = std::fs::read_to_string(table).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        fields.next().filter(|user| !user.is_empty() && (*user == name || *user == number))?;
        Some((fields.next()?.trim().parse().ok()?, fields.next()?.trim().parse().ok()?))
    })
}

/// Takes this process, which has one thread, into a user namespace of its own, as its root.
pub fn enter(uids: &[IdMap], gids: &[IdMap]) -> Result<()> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(Error::sys("socketpair"))?;
    let pid = rustix::process::getpid();
    // Left outside, to map us from there.
    let helper = spawn(Request::default(), || {
        close_copy(ours.as_raw_fd());
        if rustix::io::read(&theirs, &mut [0u8]) != Ok(1) {
            return 1;
        }
        let answer = write(pid, uids, gids).map_or_else(|error| error.chain(), |()| String::new());
        rustix::io::write(&theirs, format!("{answer}\n").as_bytes()).map_or(1, |_| 0)
    });
    let helper = helper.map_err(Error::sys("clone3"))?;
    drop(theirs);
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER).map_err(Error::sys("unshare user namespace"))?;
    rustix::io::write(&ours, &[1]).map_err(Error::sys("ask for id mappings"))?;
    let mut answer = [0; 4096];
    let length = rustix::io::read(&ours, &mut answer).map_err(Error::sys("wait for id mappings"))?;
    let _ = waitid(WaitId::Pid(helper.pid), WaitIdOptions::EXITED);
    match String::from_utf8_lossy(&answer[..length]).as_ref() {
        "\n" => {
            crate::sys::process::set_ids(0, 0, None).map_err(Error::sys("become root of the user namespace"))
        }
        text => Err(Error::Init { step: "user namespace".into(), message: text.trim().to_owned() }),
    }
}

/// Whether the kernel refuses setgroups(2) to a process with these namespaces of its own (CLONE_NEW*): who maps its
/// group itself must not leave those that keep it from files.
pub fn denies_groups(pid: Pid, namespaces: u64) -> bool {
    namespaces & libc::CLONE_NEWUSER as u64 != 0
        && std::fs::read_to_string(proc_file(pid, "setgroups")).is_ok_and(|text| text.trim() == "deny")
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
