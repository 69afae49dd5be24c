//! The runtime's side of a new process: everything is opened beforehand, one clone3 makes the child inside its
//! namespaces and cgroup, and the child's only deed before exec is what must happen in it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::LinuxNamespaceType as Ns;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::channel;
use crate::bundle::plan::Host;
use crate::isolate::cgroup::Leaf;
use crate::isolate::idmap;
use crate::sys::clone::{Child, Request, spawn};
use crate::sys::mount::{self as sys, Attr};
use crate::{Error, Result};

/// A process of ours on its way to become the user's, and the socket to it.
#[derive(Debug)]
pub struct Spawned {
    pub child: Child,
    pub socket: OwnedFd,
    /// The clone that the child was executed from. To close a mount that was never attached costs a grace period
    /// of the kernel's: it is kept until nobody waits, or until init has attached it to a tree that goes anyway.
    pub executable: Option<OwnedFd>,
}

/// Exit codes of a child that failed before it could speak.
const FAILED_CGROUP: u8 = 120;
const FAILED_JOIN: u8 = 121;
const FAILED_IDS: u8 = 122;
const FAILED_EXEC: u8 = 123;
const FAILED_CLONE: u8 = 124;
const FAILED_TIME: u8 = 125;

/// Makes the init of a container. `made_ahead`: namespaces that it will enter instead of being born in.
pub fn container(host: &Host, leaf: &Leaf, preserve_fds: u32, made_ahead: u64) -> Result<Spawned> {
    let joined = open_joined(host)?;
    let launch = Launch::new(leaf, preserve_fds)?;
    let maps_ids = host.new_namespaces & libc::CLONE_NEWUSER as u64 != 0;
    let joins_user = joined.iter().any(|(kind, _)| *kind == Ns::User);
    // The cgroup namespace is made by init itself, once it is in its cgroup.
    let unshared = libc::CLONE_NEWCGROUP as u64 | libc::CLONE_NEWTIME as u64;
    let flags = host.new_namespaces & !unshared & !made_ahead;
    let new_time = host.new_namespaces & libc::CLONE_NEWTIME as u64 != 0;
    let enter = Enter { wait_for_maps: maps_ids, become_root: maps_ids || joins_user };
    let (ours, theirs) = channel::pair().map_err(Error::sys("socketpair"))?;
    let request =
        Request { flags, cgroup: leaf.v2.as_ref().map(AsFd::as_fd), vfork: !(maps_ids || joins_user) };
    let child = if joined.is_empty() && !new_time {
        clone_into(request, |request| spawn(request, || launch.enter(&theirs, enter)))?
    } else {
        through_helper(host, &joined, new_time, request, &launch, &theirs, enter)?
    };
    drop(theirs);
    let spawned = Spawned { child, socket: ours, executable: Some(launch.executable) };
    if maps_ids {
        idmap::write(spawned.child.pid, &host.uid_mappings, &host.gid_mappings)?;
        rustix::io::write(&spawned.socket, &[1]).map_err(Error::sys("tell the child of its id mappings"))?;
    }
    Ok(spawned)
}

/// Makes the process that will join a running container.
pub fn joiner(leaf: &Leaf, preserve_fds: u32) -> Result<Spawned> {
    let launch = Launch::new(leaf, preserve_fds)?;
    let (ours, theirs) = channel::pair().map_err(Error::sys("socketpair"))?;
    let enter = Enter { wait_for_maps: false, become_root: false };
    let request = Request { flags: 0, cgroup: leaf.v2.as_ref().map(AsFd::as_fd), vfork: true };
    let child = clone_into(request, |request| spawn(request, || launch.enter(&theirs, enter)))?;
    Ok(Spawned { child, socket: ours, executable: Some(launch.executable) })
}

/// What a child that ended without a word had to say.
pub fn silent_end(pid: Pid) -> Error {
    let status = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED).ok().flatten();
    let step = match status.and_then(|status| status.exit_status()).and_then(|code| u8::try_from(code).ok()) {
        Some(FAILED_CGROUP) => "enter the container's cgroups",
        Some(FAILED_JOIN) => "join a namespace of linux.namespaces",
        Some(FAILED_IDS) => "become root of the user namespace (is id 0 mapped?)",
        Some(FAILED_EXEC) => "execute hearth's own init",
        Some(FAILED_TIME) => "set linux.timeOffsets (a clock may not end up before 0)",
        Some(FAILED_CLONE) => "make the container's namespaces",
        _ => return Error::InitGone,
    };
    Error::Init { step: "clone".into(), message: format!("cannot {step}") }
}

/// CLONE_INTO_CGROUP is refused by the no-internal-process rule and by some nested hierarchies: then the child is
/// moved, at the price of an RCU grace period.
fn clone_into(request: Request<'_>, clone: impl Fn(Request<'_>) -> std::io::Result<Child>) -> Result<Child> {
    let fail = Error::sys("clone3");
    let Some(cgroup) = request.cgroup else { return clone(request).map_err(fail) };
    match clone(request) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EOPNOTSUPP | libc::EACCES)) => {
        }
        result => return result.map_err(fail),
    }
    let child = clone(Request { cgroup: None, ..request }).map_err(fail)?;
    let procs = rustix::fs::openat(cgroup, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    let pid = child.pid.as_raw_nonzero().to_string();
    procs
        .and_then(|procs| rustix::io::write(procs, pid.as_bytes()))
        .map_err(Error::path("write", "cgroup.procs"))?;
    Ok(child)
}

#[derive(Clone, Copy)]
struct Enter {
    wait_for_maps: bool,
    become_root: bool,
}

/// What the child needs, laid out so that it allocates nothing.
struct Launch<'a> {
    executable: OwnedFd,
    tasks: Vec<BorrowedFd<'a>>,
    preserve_fds: u32,
}

impl<'a> Launch<'a> {
    fn new(leaf: &'a Leaf, preserve_fds: u32) -> Result<Self> {
        Ok(Self {
            executable: executable()?,
            tasks: leaf.tasks.iter().map(AsFd::as_fd).collect(),
            preserve_fds,
        })
    }

    /// In the child. Returns only if it fails.
    fn enter(&self, socket: &OwnedFd, enter: Enter) -> u8 {
        // The single thread of this process moves itself: that costs no grace period.
        if self.tasks.iter().any(|tasks| rustix::io::write(tasks, b"0").is_err()) {
            return FAILED_CGROUP;
        }
        if enter.wait_for_maps && rustix::io::read(socket, &mut [0u8]) != Ok(1) {
            return FAILED_IDS;
        }
        // Capabilities survive an exec only for the namespace's root.
        if enter.become_root && crate::sys::process::set_ids(0, 0, None).is_err() {
            return FAILED_IDS;
        }
        let last = i32::try_from(self.preserve_fds).unwrap_or(0) + 3;
        for fd in (3..last).chain([socket.as_raw_fd()]) {
            // A gap among the preserved descriptors is no error.
            let _ = crate::sys::fd::keep_on_exec(fd);
        }
        let mut number = [0u8; 12];
        let Some(number) = decimal(socket.as_raw_fd(), &mut number) else { return FAILED_EXEC };
        let argv = [c"hearth", c"init", number];
        let _ = crate::sys::clone::execute_fd(self.executable.as_fd(), argv);
        FAILED_EXEC
    }
}

fn decimal(mut value: RawFd, buffer: &mut [u8; 12]) -> Option<&std::ffi::CStr> {
    let mut at = buffer.len() - 1;
    loop {
        at -= 1;
        buffer[at] = b'0' + u8::try_from(value % 10).ok()?;
        value /= 10;
        if value == 0 {
            return std::ffi::CStr::from_bytes_with_nul(&buffer[at..]).ok();
        }
    }
}

/// This executable, as nobody can write to it: a read-only detached mount of its file alone, or, where that needs
/// rights that the caller lacks, a sealed copy in memory (CVE-2019-5736).
fn executable() -> Result<OwnedFd> {
    let path = "/proc/self/exe";
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let read_only = Attr { set: sys::RDONLY | sys::NOSUID, ..Attr::default() };
    let clone = open_tree(CWD, path, flags).map_err(std::io::Error::from);
    let cloned = clone.and_then(|clone| sys::set_attr(clone.as_fd(), c"", false, read_only).map(|()| clone));
    cloned.or_else(|_| sealed_copy()).map_err(Error::path("clone", path))
}

fn sealed_copy() -> std::io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let copy = rustix::fs::memfd_create("hearth", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut copy = std::fs::File::from(copy);
    std::io::copy(&mut std::fs::File::open("/proc/self/exe")?, &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}

fn open_joined(host: &Host) -> Result<Vec<(Ns, OwnedFd)>> {
    let mut opened = Vec::new();
    for (kind, path) in &host.joined {
        let fail = Error::path("open namespace", path);
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
        opened.push((*kind, fd));
    }
    // The user namespace is left to the last, while there is still the right to enter the others; a mount
    // namespace before it, for entering changes what paths mean.
    opened.sort_by_key(|(kind, _)| (*kind == Ns::User, *kind == Ns::Mount));
    Ok(opened)
}

/// Namespaces to join and offsets of a time namespace must be in force before init is cloned, and the runtime must
/// not move itself: a helper in between does it, and makes init its sibling.
fn through_helper(
    host: &Host,
    joined: &[(Ns, OwnedFd)],
    new_time: bool,
    request: Request<'_>,
    launch: &Launch<'_>,
    socket: &OwnedFd,
    enter: Enter,
) -> Result<Child> {
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Error::sys("pipe"))?;
    let offsets = host.time_offsets.as_str();
    let helper = spawn(Request::default(), || {
        if new_time && unshare_time(offsets).is_err() {
            return FAILED_TIME;
        }
        for (kind, fd) in joined {
            if setns(fd, flag(*kind)).is_err() {
                return FAILED_JOIN;
            }
        }
        let sibling = |request: Request<'_>| {
            let flags = request.flags | libc::CLONE_PARENT as u64;
            spawn(Request { flags, vfork: false, ..request }, || launch.enter(socket, enter))
        };
        let Ok(child) = clone_into(request, sibling) else { return FAILED_CLONE };
        let pid = child.pid.as_raw_nonzero().get().to_ne_bytes();
        if rustix::io::write(&writer, &pid) == Ok(pid.len()) { 0 } else { FAILED_CLONE }
    });
    let helper = helper.map_err(Error::sys("clone3"))?;
    drop(writer);
    let mut pid = [0; 4];
    if rustix::io::read(&reader, &mut pid) != Ok(pid.len()) {
        return Err(silent_end(helper.pid));
    }
    let _ = waitid(WaitId::Pid(helper.pid), WaitIdOptions::EXITED);
    let pid = Pid::from_raw(i32::from_ne_bytes(pid)).ok_or(Error::InitGone)?;
    // It is our own unreaped child by CLONE_PARENT: the pid cannot be another's.
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
    Ok(Child { pid, pidfd: pidfd.map_err(Error::sys("pidfd_open"))? })
}

fn unshare_time(offsets: &str) -> std::io::Result<()> {
    nix::sched::unshare(CloneFlags::from_bits_retain(libc::CLONE_NEWTIME))?;
    if offsets.is_empty() { Ok(()) } else { std::fs::write("/proc/self/timens_offsets", offsets) }
}

fn flag(kind: Ns) -> CloneFlags {
    CloneFlags::from_bits_retain(kind as i32)
}
