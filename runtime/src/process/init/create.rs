//! Makes a container: each numbered step is one kernel mechanism.

use std::borrow::Cow;
use std::cell::RefCell;
use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::SocketFlags;
use rustix::process::Pid;

use super::super::channel::{self, Create, ToRuntime};
use super::{Failure, claim, finish, reap, step, wait_for_go};
use crate::bundle::plan::Init;
use crate::isolate::tree::Tree;
use crate::isolate::{devices, hooks, labels, mounts, paths, rights, rootfs, sysctl, terminal};
use crate::observe::Timeline;
use crate::sys::{self, fd::Done};
use crate::{Error, Result};

pub(super) fn run(create: &Create, fds: Vec<OwnedFd>, report: &mut OwnedFd) -> Result<Infallible, Failure> {
    let mut timeline = Timeline::starting_at("init started", create.timeline);
    let mut fds = fds.into_iter();
    let listener = create.waits_for_start.then(|| fds.next()).flatten();
    let root = create.has_root.then(|| Some((fds.next()?, fds.next()?))).flatten();
    let binds: Vec<OwnedFd> = fds.collect();
    let plan = &create.plan;
    let done = Done::default();

    step("1 session", session(plan))?;
    step("2 names", names(plan))?;
    let root = match root {
        Some((root, own)) => Some((step("3 root", rootfs::attach(root, create.rootfs.as_deref()))?, own)),
        None => None,
    };
    let tree = root.as_ref().map(|(tree, _)| tree);
    timeline.mark("root attached");
    // The runtime may still be waiting for it.
    step("4 network", network(create, report))?;
    timeline.mark("namespaces");
    let mut pty = None;
    let mut null = None;
    if let Some(tree) = tree {
        let late = step("5 mounts", all_mounts(create, tree, &binds, &done))?;
        drop(binds);
        timeline.mark("mounts");
        step("6 devices", own_devices(plan, tree))?;
        timeline.mark("devices");
        if !create.parks {
            pty = step("7 terminal", console(plan, tree, report))?;
        }
        step("7 mounts", mounts::make_readonly(&late))?;
        if !plan.masked_paths.is_empty() {
            null = Some(step("8 masks", paths::null())?);
        }
    }
    let pid = if plan.has_early_hooks() { early_hooks(plan, report)? } else { 0 };
    match (&root, &create.rootfs) {
        (Some((tree, own)), at) => step("10 root", rootfs::enter(tree, own, plan.no_pivot, at.as_deref()))?,
        (None, Some(path)) => step("10 root", change_root(path))?,
        (None, None) => {}
    }
    let tree = root.map(|(tree, _)| tree);
    timeline.mark("root entered");
    step("11 sysctl", sysctl::apply(&plan.sysctl))?;
    if tree.is_some() {
        if let Some(null) = null {
            step("12 paths", paths::mask(&plan.masked_paths, null, &done))?;
        }
        step("12 paths", paths::make_readonly(&plan.readonly_paths, &done))?;
    }
    drop(done);
    timeline.mark("paths");
    let rest = Rest { pty, timeline, listener, pid, parent: None };
    complete(create, tree, rest, report)
}

/// From a sandbox that lacks nothing but what a launch may settle to the program.
fn complete(
    create: &Create,
    tree: Option<Tree>,
    mut rest: Rest,
    report: &mut OwnedFd,
) -> Result<Infallible, Failure> {
    let mut plan = Cow::Borrowed(&create.plan);
    if create.parks {
        step("14 ready", say(report, &ToRuntime::Ready { steps: rest.timeline.take() }))?;
        (rest.pid, rest.pty) = claim::take(plan.to_mut(), tree.as_ref(), report)?;
        rest.timeline.mark("claim applied");
    }
    let plan = &*plan;
    if let Some(tree) = &tree {
        step("12 paths", make_cwd(plan))?;
        step("12 paths", rootfs::finish(tree, plan.root_propagation, plan.root_readonly))?;
    }
    drop(tree);
    if plan.reaper {
        rest.parent = Some(rustix::process::getpid());
        return reap::stay_behind(plan, report, |report| rest.run(create, plan, report));
    }
    rest.run(create, plan, report)
}

/// What is left to do once the container is there, in the process that becomes the program.
struct Rest {
    pty: Option<terminal::Pty>,
    timeline: Timeline,
    listener: Option<OwnedFd>,
    /// The container's as the runtime sees it, 0 where that is not known yet.
    pid: i32,
    /// Who stays behind as the container's first process.
    parent: Option<Pid>,
}

impl Rest {
    fn run(self, create: &Create, plan: &Init, report: &mut OwnedFd) -> Result<Infallible, Failure> {
        let Self { pty, mut timeline, listener, mut pid, parent } = self;
        let program = finish::prepare(&plan.process, &plan.common, pty.as_ref(), report)?;
        drop(pty);
        timeline.mark("rights");
        // `run` has sent its Go with the plan: it only wants to know of failures.
        if create.waits_for_start || create.parks || create.timeline {
            step("14 ready", say(report, &ToRuntime::Ready { steps: timeline.take() }))?;
        }
        if !create.parks {
            pid = pid.max(wait_for_go(report)?);
        }
        if let Some(listener) = listener {
            pid = pid.max(wait_for_start(&listener, report)?);
        }
        step("14 init", parent.map_or(Ok(()), reap::die_with))?;
        finish::lock_down(&plan.process, &plan.common, &program, report)?;
        let state = state(plan, "created", pid);
        step("15 hooks", hooks::run("startContainer", &plan.start_container, &state, Some(&program.env)))?;
        finish::execute(&plan.process, &program)
    }
}

/// Those of the runtime, then the container's own.
fn early_hooks(plan: &Init, report: &OwnedFd) -> Result<i32, Failure> {
    step("9 hooks", say(report, &ToRuntime::AtHooks))?;
    let pid = wait_for_go(report)?;
    let state = state(plan, "creating", pid);
    step("9 hooks", hooks::run("createContainer", &plan.create_container, &state, None))?;
    Ok(pid)
}

fn session(plan: &Init) -> Result<()> {
    rustix::process::setsid().map_err(Error::sys("setsid"))?;
    rights::reset_affinity()?;
    if plan.new_keyring {
        labels::label_keyring(&plan.process)?;
        sys::keyring::join_session(&format!("_ses.{}", plan.id)).map_err(Error::sys("keyctl"))?;
    }
    if plan.new_cgroup_namespace {
        // Here, not by clone3, which would take the runtime's cgroup for the namespace's root.
        nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).map_err(Error::sys("unshare cgroup namespace"))?;
    }
    Ok(())
}

fn names(plan: &Init) -> Result<()> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(Error::path("sethostname", name))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).map_err(Error::path("setdomainname", name))?;
    }
    Ok(())
}

fn network(create: &Create, runtime: &OwnedFd) -> Result<()> {
    if create.has_network {
        let received = channel::receive(runtime.as_fd()).map_err(Error::sys("receive the network"))?;
        let Some((channel::ToInit::Network, fds)) = received else { return Err(Error::InitGone) };
        let [namespace] = fds.try_into().map_err(|_| Error::InitGone)?;
        return setns(&namespace, CloneFlags::CLONE_NEWNET)
            .map_err(Error::sys("enter the network namespace"));
    }
    if create.plan.new_network { sys::net::loopback_up().map_err(Error::sys("bring lo up")) } else { Ok(()) }
}

/// Returns what is to be made read-only when nothing is made in it any more.
fn all_mounts(create: &Create, tree: &Tree, binds: &[OwnedFd], done: &Done) -> Result<Vec<OwnedFd>> {
    let context = mounts::Context {
        tree,
        binds,
        cgroups: &create.cgroups,
        private_cgroup: create.plan.new_cgroup_namespace,
        label: create.plan.mount_label.as_deref(),
        done,
        late: RefCell::default(),
        fresh: RefCell::default(),
    };
    create.plan.mounts.iter().try_for_each(|mount| mounts::mount(&context, mount))?;
    Ok(context.late.into_inner())
}

fn own_devices(plan: &Init, tree: &Tree) -> Result<()> {
    if !plan.fill_dev {
        return Ok(());
    }
    // The nodes get the modes of the plan.
    let umask = rustix::process::umask(Mode::empty());
    devices::fill(tree, &plan.devices, plan.user_namespace)?;
    rustix::process::umask(umask);
    Ok(())
}

pub(super) fn console(plan: &Init, tree: &Tree, report: &OwnedFd) -> Result<Option<terminal::Pty>> {
    let Some(window) = plan.process.terminal else { return Ok(None) };
    let pty = terminal::open(tree, window)?;
    if plan.fill_dev {
        terminal::mount_console(tree, &pty)?;
    }
    channel::send(report.as_fd(), &ToRuntime::Console, &[pty.master.as_fd()])
        .map_err(Error::sys("send the pty"))?;
    Ok(Some(pty))
}

fn change_root(path: &str) -> Result<()> {
    rustix::process::chdir(path).map_err(Error::path("chdir", path))?;
    rustix::process::chroot(".").map_err(Error::path("chroot", path))
}

/// As in runc, a working directory that is not there is made.
fn make_cwd(plan: &Init) -> Result<()> {
    let cwd = plan.process.cwd.as_str();
    if cwd == "/" {
        return Ok(());
    }
    let root =
        rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let tree = Tree::new(root.map_err(Error::path("open", "/"))?);
    match tree.make_directory(cwd) {
        // A read-only file system: chdir will tell.
        Err(error) if error.raw_os_error() == Some(libc::EROFS) => Ok(()),
        result => result.map(drop).map_err(Error::path("mkdir", cwd)),
    }
}

fn state<'a>(plan: &'a Init, status: &'a str, pid: i32) -> hooks::State<'a> {
    hooks::State::new(
        &plan.id,
        status,
        pid,
        &plan.bundle,
        plan.annotations.iter().map(|(key, value)| (key, value)),
    )
}

fn say(socket: &OwnedFd, message: &ToRuntime) -> Result<()> {
    channel::send(socket.as_fd(), message, &[]).map_err(Error::sys("report to the runtime"))
}

/// Waits for `hearth start`. Its connection replaces the runtime's, which is gone: a failure of the exec goes
/// there, and its silent end means success.
///
/// The first process of a PID namespace ignores what it has no handler for: here, as in runc, a signal that asks a
/// program to end ends it.
fn wait_for_start(listener: &OwnedFd, report: &mut OwnedFd) -> Result<i32, Failure> {
    let asked: SigSet =
        [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM].into_iter().collect();
    step("14 start", asked.thread_block().map_err(Error::sys("sigprocmask")))?;
    let signals = SignalFd::with_flags(&asked, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
    let signals = step("14 start", signals.map_err(Error::sys("signalfd")))?;
    loop {
        let mut waiting = [PollFd::new(&signals, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        match poll(&mut waiting, None) {
            Err(rustix::io::Errno::INTR) => continue,
            ready => step("14 start", ready.map_err(Error::sys("poll")))?,
        };
        if let Ok(Some(signal)) = signals.read_signal() {
            sys::clone::exit_now(u8::try_from(128 + signal.ssi_signo).unwrap_or(1));
        }
        let accepted = match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
            accepted => step("14 start", accepted.map_err(Error::sys("accept")))?,
        };
        // Someone who only asks whether we still wait connects and hangs up.
        if let Ok(Some((channel::ToInit::Go { pid, .. }, _))) = channel::receive(accepted.as_fd()) {
            *report = accepted;
            step("14 start", asked.thread_unblock().map_err(Error::sys("sigprocmask")))?;
            return Ok(pid);
        }
    }
}
