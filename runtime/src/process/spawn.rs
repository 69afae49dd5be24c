//! The runtime's side of a new process: everything is opened beforehand, one clone3 makes the child inside its
//! namespaces and cgroup.
//!
//! What may be looked at from a container before it is the user's program is executed afresh from a read-only clone of
//! our executable: nothing of the runtime's memory is in it. The init of a `run` is alone in its PID namespace until
//! then, so where the runtime itself runs from such a clone (`sys::entry`), a fork of it will do, and costs half.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::LinuxNamespaceType as Ns;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, WaitId, WaitIdOptions, geteuid, waitid};

use super::channel::{self, Create, ToInit, ToRuntime};
use super::executable::Executable;
use super::init;
use crate::bundle::plan::{Host, Init};
use crate::bundle::process::Process;
use crate::isolate::cgroup::Leaf;
use crate::isolate::idmap;
use crate::isolate::sources::Sources;
use crate::sys::clone::{Child, Request, spawn};
use crate::sys::entry::take_clone;
use crate::{Error, Result};

/// A process of ours on its way to become the user's, and the socket to it.
#[derive(Debug)]
pub struct Spawned {
    pub child: Child,
    pub socket: OwnedFd,
    /// The clone that the child was executed from. To close a mount that was never attached costs a grace period
    /// of the kernel's: it is kept until nobody waits, or until init has attached it to a tree that goes anyway.
    pub executable: Option<OwnedFd>,
    forked: bool,
}

impl Spawned {
    pub fn tell(&self, message: &ToInit, fds: &[BorrowedFd<'_>]) -> Result<()> {
        channel::send(self.socket.as_fd(), message, fds).map_err(|_| self.last_words())
    }

    /// For an init that was executed afresh; a fork knows its plan.
    pub fn tell_plan(&mut self, order: &mut Order) -> Result<()> {
        if let (Some(executable), false) = (&self.executable, self.forked) {
            let message = ToInit::Create(Box::new(std::mem::take(&mut order.create)));
            let told = self.tell(&message, &order.descriptors(executable));
            if let ToInit::Create(create) = message {
                order.create = *create;
            }
            told?;
        }
        if order.create.has_root {
            self.executable = None;
        }
        Ok(())
    }

    /// Why the child is not there any more to listen.
    fn last_words(&self) -> Error {
        while let Ok(Some((message, _))) = channel::receive::<ToRuntime>(self.socket.as_fd()) {
            if let ToRuntime::Failed { step, message } = message {
                return Error::Init { step, message };
            }
        }
        silent_end(self.child.pid)
    }
}

/// What a container's init is told, and handed.
#[derive(Debug)]
pub struct Order {
    pub create: Create,
    pub listener: Option<OwnedFd>,
    /// None until the child has opened them.
    pub sources: Option<Sources>,
}

impl Order {
    fn descriptors<'a>(&'a self, executable: &'a OwnedFd) -> Vec<BorrowedFd<'a>> {
        let root = self.sources.iter().flat_map(|sources| &sources.root);
        let binds = self.sources.iter().flat_map(|sources| &sources.binds);
        let executable = root.clone().next().map(|_| executable);
        self.listener.iter().chain(root).chain(executable).chain(binds).map(AsFd::as_fd).collect()
    }

    /// Whether nobody but init itself can see init before it is the program: it is the first in its PID namespace,
    /// runs nothing of the image's before, does not wait for a `start` or a claim, while others could join it, and does not stay.
    fn is_unseen(&self, host: &Host) -> bool {
        let plan = &self.create.plan;
        host.new_namespaces & libc::CLONE_NEWPID as u64 != 0
            && plan.start_container.is_empty()
            && !(plan.reaper || self.create.waits_for_start || self.create.parks)
    }
}

/// Exit codes of a child that failed before it could speak.
const FAILED_CGROUP: u8 = 120;
const FAILED_JOIN: u8 = 121;
const FAILED_IDS: u8 = 122;
const FAILED_EXEC: u8 = 123;
const FAILED_CLONE: u8 = 124;
const FAILED_TIME: u8 = 125;
const FAILED_SCORE: u8 = 126;
/// It has said why.
const FAILED_SOURCES: u8 = 127;

/// Makes the init of a container; [`Spawned::tell_plan`] is to follow. `made_ahead`: namespaces that it will enter instead of
/// being born in.
pub fn container(host: &Host, leaf: &Leaf, made_ahead: u64, order: &Order) -> Result<Spawned> {
    let joined = open_joined(host)?;
    let maps_ids = host.new_namespaces & libc::CLONE_NEWUSER as u64 != 0;
    let joins_user = joined.iter().any(|(kind, _)| *kind == Ns::User);
    // The cgroup namespace is made by init itself, once it is in its cgroup.
    let unshared = libc::CLONE_NEWCGROUP as u64 | libc::CLONE_NEWTIME as u64;
    let flags = host.new_namespaces & !unshared & !made_ahead;
    let new_time = host.new_namespaces & libc::CLONE_NEWTIME as u64 != 0;
    let is_direct = joined.is_empty() && !new_time;
    let forkable = is_direct && !leaf.is_late && order.sources.is_some() && order.is_unseen(host);
    let own = if forkable { take_clone() } else { None };
    let forks = own.is_some();
    let mut launch = Launch::new(leaf, own, &order.create.plan.process)?;
    launch.opens = order.sources.is_none().then_some((host, &order.create.plan));
    let (ours, theirs) = channel::pair().map_err(Error::sys("socketpair"))?;
    let enter = Enter { wait: maps_ids, become_root: maps_ids || joins_user, runtimes_end: ours.as_raw_fd() };
    let vfork = !(maps_ids || joins_user || forks);
    let request = Request { flags, cgroup: leaf.v2.as_ref().map(AsFd::as_fd), vfork };
    let (child, moved) = if forks {
        let fds = order.descriptors(launch.executable.holder());
        let fork = |request: Request<'_>| {
            // It must not go on before it is where it belongs.
            let enter =
                Enter { wait: enter.wait || (request.cgroup.is_none() && leaf.v2.is_some()), ..enter };
            spawn(request, || launch.fork(&theirs, enter, &order.create, &fds))
        };
        clone_into(request, fork)?
    } else if is_direct {
        clone_into(request, |request| spawn(request, || launch.execute(&theirs, enter)))?
    } else {
        (through_helper(host, &joined, new_time, request, &launch, &theirs, enter)?, false)
    };
    drop(theirs);
    let executable = Some(launch.executable.into_holder());
    let spawned = Spawned { child, socket: ours, executable, forked: forks };
    if maps_ids {
        idmap::write(spawned.child.pid, &host.uid_mappings, &host.gid_mappings)?;
    }
    if maps_ids || (forks && moved) {
        rustix::io::write(&spawned.socket, &[1]).map_err(Error::sys("let the child go on"))?;
    }
    Ok(spawned)
}

/// Makes the process that will join a running container.
pub fn joiner(leaf: &Leaf, process: &Process) -> Result<Spawned> {
    let launch = Launch::new(leaf, None, process)?;
    let (ours, theirs) = channel::pair().map_err(Error::sys("socketpair"))?;
    let enter = Enter { wait: false, become_root: false, runtimes_end: ours.as_raw_fd() };
    let request = Request { flags: 0, cgroup: leaf.v2.as_ref().map(AsFd::as_fd), vfork: true };
    let (child, _) = clone_into(request, |request| spawn(request, || launch.execute(&theirs, enter)))?;
    Ok(Spawned { child, socket: ours, executable: Some(launch.executable.into_holder()), forked: false })
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
        Some(FAILED_SCORE) => "set process.oomScoreAdj (lowering it needs CAP_SYS_RESOURCE)",
        _ => return Error::InitGone,
    };
    Error::Init { step: "clone".into(), message: format!("cannot {step}") }
}

/// CLONE_INTO_CGROUP is refused by the no-internal-process rule and by some nested hierarchies: then the child is
/// moved, at the price of an RCU grace period. Whether it was, comes back.
pub(crate) fn clone_into(
    request: Request<'_>,
    clone: impl Fn(Request<'_>) -> std::io::Result<Child>,
) -> Result<(Child, bool)> {
    let fail = Error::sys("clone3");
    let cgroup = match (clone(request), request.cgroup) {
        (Err(error), Some(cgroup))
            if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EOPNOTSUPP | libc::EACCES)) =>
        {
            cgroup
        }
        (result, _) => return Ok((result.map_err(fail)?, false)),
    };
    let child = clone(Request { cgroup: None, ..request }).map_err(fail)?;
    let procs = rustix::fs::openat(cgroup, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    let pid = child.pid.as_raw_nonzero().to_string();
    procs
        .and_then(|procs| rustix::io::write(procs, pid.as_bytes()))
        .map_err(Error::path("write", "cgroup.procs"))?;
    Ok((child, true))
}

#[derive(Clone, Copy)]
struct Enter {
    /// For a byte from the runtime: id mappings are written, or the child is moved to its cgroup.
    wait: bool,
    become_root: bool,
    /// Of the socket: who waits must not hold it, else the runtime's death would not be seen.
    runtimes_end: RawFd,
}

/// What the child needs, laid out so that one that shares our memory allocates nothing.
struct Launch<'a> {
    executable: Executable,
    tasks: Vec<BorrowedFd<'a>>,
    preserve_fds: u32,
    /// Of an ordinary user's process: once it is init, its files in /proc are not the user's any more.
    oom_score: Option<String>,
    opens: Option<(&'a Host, &'a Init)>,
}

impl<'a> Launch<'a> {
    fn new(leaf: &'a Leaf, own: Option<OwnedFd>, process: &Process) -> Result<Self> {
        let oom_score = process.oom_score_adj.filter(|_| !geteuid().is_root());
        Ok(Self {
            executable: own.map_or_else(Executable::own, |clone| Ok(clone.into()))?,
            tasks: leaf.tasks.iter().map(AsFd::as_fd).collect(),
            preserve_fds: process.preserve_fds,
            oom_score: oom_score.map(|score| score.to_string()),
            opens: None,
        })
    }

    /// In the child, first of all.
    fn enter(&self, socket: &OwnedFd, enter: Enter) -> Result<(), u8> {
        // The single thread of this process moves itself: that costs no grace period.
        if self.tasks.iter().any(|tasks| rustix::io::write(tasks, b"0").is_err()) {
            return Err(FAILED_CGROUP);
        }
        if self.oom_score.as_ref().is_some_and(|score| set_own_oom_score(score).is_err()) {
            return Err(FAILED_SCORE);
        }
        if enter.wait {
            crate::sys::fd::close_copy(enter.runtimes_end);
            if rustix::io::read(socket, &mut [0u8]) != Ok(1) {
                return Err(FAILED_IDS);
            }
        }
        if self.opens.is_some_and(|(host, init)| !open_sources(host, init, socket)) {
            return Err(FAILED_SOURCES);
        }
        // Capabilities survive an exec only for the namespace's root.
        if enter.become_root && crate::sys::process::set_ids(0, 0, None).is_err() {
            return Err(FAILED_IDS);
        }
        Ok(())
    }

    fn preserve(&self) {
        let last = i32::try_from(self.preserve_fds).unwrap_or(0) + 3;
        for fd in 3..last {
            // A gap among them is no error.
            let _ = crate::sys::fd::keep_on_exec(fd);
        }
    }

    /// In the child, which has a copy of our memory and of our descriptors. Returns only if it fails.
    fn fork(&self, socket: &OwnedFd, enter: Enter, create: &Create, fds: &[BorrowedFd<'_>]) -> u8 {
        match self.enter(socket, enter) {
            Ok(()) => {
                self.preserve();
                init::forked(create, socket.as_fd(), fds, self.preserve_fds)
            }
            Err(status) => status,
        }
    }

    /// In the child. Returns only if it fails.
    fn execute(&self, socket: &OwnedFd, enter: Enter) -> u8 {
        if let Err(status) = self.enter(socket, enter) {
            return status;
        }
        self.preserve();
        let _ = crate::sys::fd::keep_on_exec(socket.as_raw_fd());
        let mut number = [0u8; 12];
        let Some(number) = decimal(socket.as_raw_fd(), &mut number) else { return FAILED_EXEC };
        let argv = [c"hearth", c"init", number];
        let _ = crate::sys::clone::execute_fd(self.executable.file.as_fd(), argv);
        FAILED_EXEC
    }
}

fn set_own_oom_score(score: &str) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty())?;
    rustix::io::write(file, score.as_bytes()).map(drop)
}

/// In a child that is a fork of a process with one thread, and so may allocate.
fn open_sources(host: &Host, init: &Init, socket: &OwnedFd) -> bool {
    let (message, sources) = match Sources::open(host, init) {
        Ok(sources) => (ToRuntime::Opened, Some(sources)),
        Err(error) => (ToRuntime::Failed { step: "sources".into(), message: error.chain() }, None),
    };
    let fds = sources.iter().flat_map(|from| from.root.iter().chain(&from.binds)).map(AsFd::as_fd);
    let fds: Vec<_> = fds.collect();
    channel::send(socket.as_fd(), &message, &fds).is_ok() && sources.is_some()
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
            spawn(Request { flags, vfork: false, ..request }, || launch.execute(socket, enter))
        };
        let Ok((child, _)) = clone_into(request, sibling) else { return FAILED_CLONE };
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
