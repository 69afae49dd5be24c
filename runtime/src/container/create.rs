//! `create`: from a bundle to an init that waits for its start. Whatever fails, or whoever dies, on the way: what
//! is made is recorded before it is made, and is taken back.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions, geteuid, pidfd_send_signal, waitid};

use super::{Container, console, delete, notify};
use crate::bundle::load::{self, Bundle};
use crate::bundle::plan::{self, Plan};
use crate::bundle::process::text;
use crate::isolate::cgroup::{self, Host, Joins, Placement};
use crate::isolate::network::{self, Ahead};
use crate::isolate::seccomp::notify::Agent;
use crate::isolate::{hooks, idmap, intel_rdt, labels, net_devices, sources::Sources};
use crate::observe::{self, Timeline, clock, log};
use crate::process::channel::{self, Create, ToInit, ToRuntime};
use crate::process::spawn::{self, Order, Spawned};
use crate::store::record::{self, Record};
use crate::store::{Dir, Root};
use crate::{Error, Result};

/// What `create` and `run` are asked for.
#[derive(Debug, Default, PartialEq)]
pub struct Options {
    pub id: String,
    pub bundle: PathBuf,
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub preserve_fds: u32,
    /// The program is not the container's first process.
    pub init: bool,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    /// The container's group is made by systemd.
    pub systemd_cgroup: bool,
    /// See [`Placement::rootless`].
    pub rootless: Option<bool>,
    /// `run` starts the container itself: there is no start socket.
    pub runs: bool,
    /// The command does not wait for the container's end.
    pub detach: bool,
    /// Init is parked at the end, and waits for a claim on its socket.
    pub parks: bool,
    pub timeline: bool,
}

/// A container whose init has set up everything and waits, or, for `run`, has become the program.
#[derive(Debug)]
pub struct Created {
    pub container: Container,
    pub spawned: Spawned,
    pub plan: Plan,
    /// The master of the container's terminal, where it was not sent to a console socket.
    pub terminal: Option<OwnedFd>,
    /// For `run`: between the program and the caller's NOTIFY_SOCKET.
    pub relay: Option<notify::Relay>,
    pub timeline: Timeline,
}

pub fn create(root: &Root, options: &Options) -> Result<Created> {
    let mut timeline = Timeline::new(options.timeline);
    crate::bundle::validate::id(&options.id)?;
    let (path, text) = load::text(&options.bundle)?;
    let network = Ahead::guess(&text);
    let bundle = load::understand(path, text)?;
    let mut plan = plan::plan(&options.id, &bundle).map_err(|error| error.at("config.json"))?;
    bundle.warnings.iter().for_each(|warning| log::warn(warning));
    console::check(&mut plan, options)?;
    plan.init.process.warnings(plan.init.user_namespace).for_each(|warning| log::warn(&warning));
    labels::check(&plan.init.process)?;
    plan.init.reaper |= options.init;
    plan.init.no_pivot = options.no_pivot;
    plan.init.new_keyring = !options.no_new_keyring;
    timeline.mark("config read");
    let dir = reserve(root, &options.id)?;
    let mut made = Made::new(dir);
    made.network = network;
    let terminal = made.all(options, &bundle, &mut plan, &mut timeline)?;
    log::debug("init: closing the pipe to signal completion");
    let spawned = made.spawned.take().ok_or(Error::InitGone)?;
    let container = made.keep()?;
    Ok(Created { container, spawned, plan, terminal, relay: made.relay.take(), timeline })
}

/// The directory of the new container. What a dead creator of the same id left is cleaned.
pub(super) fn reserve(root: &Root, id: &str) -> Result<Dir> {
    let exists = || Error::ContainerExists { id: id.to_owned() };
    if let Some(dir) = root.reserve(id)? {
        return Ok(dir);
    }
    let Ok(leftover) = Container::open(root, id) else { return Err(exists()) };
    let unfinished = leftover.record.as_ref().is_none_or(|record| record.process.is_none());
    if !unfinished || leftover.dir.is_busy()? {
        return Err(exists());
    }
    delete::destroy(&leftover)?;
    root.reserve(id)?.ok_or_else(exists)
}

/// What exists so far. Dropped before it is complete, it is taken back.
pub(super) struct Made {
    pub(super) dir: Option<Dir>,
    pub(super) record: Option<Record>,
    pub(super) spawned: Option<Spawned>,
    relay: Option<notify::Relay>,
    network: Option<Ahead>,
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(dir) = self.dir.take() {
            take_back(self.spawned.as_ref(), &Container { dir, record: self.record.take() });
        }
    }
}

/// Leaves nothing of a container that could not be created or started. The error that led here is the one to tell.
pub(super) fn take_back(spawned: Option<&Spawned>, container: &Container) {
    if let Some(spawned) = spawned {
        let _ = pidfd_send_signal(&spawned.child.pidfd, Signal::KILL);
        let _ = waitid(WaitId::Pid(spawned.child.pid), WaitIdOptions::EXITED);
    }
    let _ = delete::destroy(container);
}

impl Made {
    pub(super) fn new(dir: Dir) -> Self {
        Self { dir: Some(dir), record: None, spawned: None, relay: None, network: None }
    }

    /// It is complete.
    pub(super) fn keep(&mut self) -> Result<Container> {
        let dir = self.dir.take().ok_or(Error::InitGone)?;
        Ok(Container { dir, record: self.record.take() })
    }

    /// Up to an init that is at work.
    pub(super) fn set_off(
        &mut self,
        options: &Options,
        bundle: &Bundle,
        plan: &mut Plan,
        timeline: &mut Timeline,
    ) -> Result<()> {
        let dir = self.dir.as_ref().ok_or(Error::InitGone)?;
        notify::prepare(plan, dir, options.preserve_fds)?;
        let network = Ahead::settle(self.network.take(), &plan.host);
        let sources = Sources::open_ahead(&plan.host, &plan.init)?;
        let has_root = plan.init.mount_namespace;
        let waits_for_start = !(options.runs || options.parks);
        let listener = waits_for_start.then(|| listen(dir)).transpose()?;
        let placement = place(options, plan)?;
        let record = self.record.insert(record(options, bundle, plan, placement));
        let rdt = plan.host.intel_rdt.as_ref();
        record.intel_rdt = rdt.map(|rdt| intel_rdt::plan(rdt, &options.id)).transpose()?;
        dir.write_first(record)?;
        timeline.mark("recorded");
        let resources = plan.host.resources.as_ref();
        let declared = bundle.spec.linux().as_ref().and_then(|linux| linux.devices().as_deref());
        let rules = cgroup::device_rules(resources, declared.unwrap_or_default())?;
        let mut leaf = record.cgroups.create(resources)?;
        record.cgroups.restrict_ahead(&mut leaf, &rules)?;
        if let Some(uid) = plan.host.cgroup_owner {
            record.cgroups.give(&mut leaf, uid)?;
        }
        timeline.mark("cgroup made");
        let made_ahead = network.as_ref().map_or(0, |_| network::FLAG);
        // Hooks that enter the namespace look for the root where it is outside.
        let named = !has_root || plan.init.has_early_hooks();
        let rootfs = named.then(|| text(&plan.host.rootfs, "root.path")).transpose()?;
        let create = Create {
            // On loan.
            plan: std::mem::take(&mut plan.init),
            cgroups: record.cgroups.view(),
            waits_for_start,
            parks: options.parks,
            has_root,
            has_network: network.is_some(),
            rootfs,
            timeline: options.timeline,
        };
        let mut order = Order { create, listener, sources };
        let spawned = begin(&plan.host, &mut leaf, made_ahead, record, &mut order, &mut self.spawned);
        plan.init = order.create.plan;
        let spawned = spawned?;
        timeline.mark("set off");
        plan.init.common.tell();
        log::debug("nsexec container setup: cloned into its namespaces");
        log::debug("child process in init(): it has its plan");
        // Init is at work meanwhile.
        record.cgroups.restrict_meanwhile(&mut leaf, &rules)?;
        give_network(spawned, plan, network)?;
        timeline.mark("network given");
        leaf.notes.iter().for_each(|note| log::warn(note));
        leaf.without.iter().for_each(|note| log::debug(note));
        drop(leaf);
        dir.write_config(&bundle.text)?;
        record.process = Some(record::Process::of(spawned.child.pid)?);
        Ok(())
    }

    fn all(
        &mut self,
        options: &Options,
        bundle: &Bundle,
        plan: &mut Plan,
        timeline: &mut Timeline,
    ) -> Result<Option<OwnedFd>> {
        self.set_off(options, bundle, plan, timeline)?;
        let (Some(dir), Some(record), Some(spawned)) = (&self.dir, &self.record, &self.spawned) else {
            return Err(Error::InitGone);
        };
        if options.runs {
            // Init need not tell that it is ready, and need not wait for a word: it finds it.
            self.relay = notify::Relay::open(dir)?;
            send_pidfd(options, spawned)?;
            publish(dir, record, options)?;
            if !plan.init.has_early_hooks() {
                go(spawned)?;
            }
            return converse(spawned, plan, options, timeline);
        }
        let terminal = converse(spawned, plan, options, timeline)?;
        send_pidfd(options, spawned)?;
        publish(dir, record, options)?;
        // From here on init may outlive us. A parked one has heard nothing of that yet.
        if !options.parks {
            go(spawned)?;
        }
        Ok(terminal)
    }
}

/// Makes init, and has it begin.
fn begin<'a>(
    host: &plan::Host,
    leaf: &mut cgroup::Leaf,
    made_ahead: u64,
    record: &mut Record,
    order: &mut Order,
    place: &'a mut Option<Spawned>,
) -> Result<&'a mut Spawned> {
    let spawned = place.insert(spawn::container(host, leaf, made_ahead, order)?);
    record.cgroups.enclose(number(spawned), host.resources.as_ref(), leaf)?;
    if let (Some(groups), Some(rdt)) = (&record.intel_rdt, &host.intel_rdt) {
        groups.create(rdt, number(spawned))?;
    }
    if order.sources.is_none() {
        order.sources = Some(opened(spawned, &order.create.plan)?);
    }
    order.create.plan.process.groups_denied = idmap::denies_groups(spawned.child.pid, record.namespaces);
    // Before there can be a child of init's. An ordinary user's child does it itself.
    if let Some(score) = order.create.plan.process.oom_score_adj.filter(|_| geteuid().is_root()) {
        set_oom_score(number(spawned), score)?;
    }
    spawned.tell_plan(order)?;
    Ok(spawned)
}

/// What the child has opened.
fn opened(spawned: &Spawned, init: &plan::Init) -> Result<Sources> {
    match channel::receive(spawned.socket.as_fd()).map_err(Error::sys("receive from init"))? {
        Some((ToRuntime::Opened, fds)) => Ok(Sources::of(init, fds)),
        Some((ToRuntime::Failed { step, message }, _)) => Err(Error::Init { step, message }),
        _ => Err(spawn::silent_end(spawned.child.pid)),
    }
}

fn send_pidfd(options: &Options, spawned: &Spawned) -> Result<()> {
    let path = options.pidfd_socket.as_ref();
    path.map_or(Ok(()), |path| console::send(spawned.child.pidfd.as_fd(), b"pidfd", path))
}

/// Makes the process known: to later commands and to the caller.
pub(super) fn publish(dir: &Dir, record: &Record, options: &Options) -> Result<()> {
    if let (Some(path), Some(process)) = (&options.pid_file, record.process) {
        write_pid_file(path, process.pid)?;
    }
    dir.write(record)
}

fn number(spawned: &Spawned) -> i32 {
    spawned.child.pid.as_raw_nonzero().get()
}

pub(super) fn place(options: &Options, plan: &Plan) -> Result<Placement> {
    let path = plan.host.cgroups_path.as_deref();
    if options.systemd_cgroup {
        return Placement::by_systemd(&Host::detect()?, path, &options.id, &plan.init.annotations);
    }
    let lazy = options.runs && !options.detach && path.is_none();
    let joins = if lazy { Joins::Limited } else { Joins::All };
    let resources = plan.host.resources.as_ref();
    let host = Host::detect_for(joins, resources)?;
    let mut placement = Placement::plan(&host, path, &options.id, joins, resources)?;
    placement.rootless = options.rootless;
    placement.check_unused().map(|()| placement)
}

fn go(spawned: &Spawned) -> Result<()> {
    spawned.tell(&ToInit::Go { pid: number(spawned), ignored: observe::process::ignored_signals()? }, &[])
}

/// Answers init until it is ready, for `create`, or until it has become the program, for `run`: then the stream
/// ends without a word.
fn converse(
    spawned: &Spawned,
    plan: &Plan,
    options: &Options,
    timeline: &mut Timeline,
) -> Result<Option<OwnedFd>> {
    let mut terminal = None;
    loop {
        match channel::receive::<ToRuntime>(spawned.socket.as_fd())
            .map_err(Error::sys("receive from init"))?
        {
            Some((ToRuntime::AtHooks, _)) => {
                let state = hook_state(&plan.init, "creating", number(spawned));
                hooks::run("prestart", &plan.host.hooks.prestart, &state, None)?;
                hooks::run("createRuntime", &plan.host.hooks.create_runtime, &state, None)?;
                go(spawned)?;
                if options.runs {
                    go(spawned)?;
                }
            }
            Some((ToRuntime::Console, fds)) => {
                let master = fds.into_iter().next().ok_or(Error::InitGone)?;
                terminal = console::deliver(master, options.console_socket.as_deref())?;
            }
            Some((ToRuntime::Listener, fds)) => {
                let state = hook_state(&plan.init, "creating", number(spawned));
                deliver_listener(plan.host.seccomp_agent.as_ref(), fds, number(spawned), &state)?;
            }
            Some((ToRuntime::Ready { steps }, _)) => {
                timeline.add(steps);
                if !options.runs {
                    return Ok(terminal);
                }
            }
            Some((ToRuntime::Failed { step, message }, _)) => return Err(Error::Init { step, message }),
            None if options.runs => return Ok(terminal),
            Some((ToRuntime::Joined { .. } | ToRuntime::Opened, _)) => return Err(Error::InitGone),
            None => return Err(spawn::silent_end(spawned.child.pid)),
        }
    }
}

/// Passes the listener of a process's seccomp filter on to the agent.
pub(super) fn deliver_listener(
    agent: Option<&Agent>,
    fds: Vec<OwnedFd>,
    pid: i32,
    state: &hooks::State<'_>,
) -> Result<()> {
    let (Some(agent), Some(listener)) = (agent, fds.first()) else { return Err(Error::InitGone) };
    agent.send(listener.as_fd(), pid, state)
}

pub(super) fn hook_state<'a>(init: &'a plan::Init, status: &'a str, pid: i32) -> hooks::State<'a> {
    hooks::State::new(
        &init.id,
        status,
        pid,
        &init.bundle,
        init.annotations.iter().map(|(key, value)| (key, value)),
    )
}

pub(super) fn set_oom_score(pid: i32, score: i32) -> Result<()> {
    let path = PathBuf::from(format!("/proc/{pid}/oom_score_adj"));
    match std::fs::write(&path, score.to_string()) {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            // What it is already needs no right to set.
            let current = std::fs::read_to_string(&path).unwrap_or_default();
            if current.trim() == score.to_string() {
                return Ok(());
            }
            let what = format!("process.oomScoreAdj: {score}: lowering it needs CAP_SYS_RESOURCE");
            Err(Error::Refused { what, source: error })
        }
        result => result.map_err(Error::path("write", &path)),
    }
}

pub(super) fn record(options: &Options, bundle: &Bundle, plan: &Plan, cgroups: Placement) -> Record {
    let joined = plan.host.joined.iter().fold(0, |flags, (kind, _)| flags | *kind as u64);
    Record {
        version: record::VERSION,
        id: options.id.clone(),
        process: None,
        bundle: bundle.dir.clone(),
        rootfs: plan.host.rootfs.clone(),
        created: clock::rfc3339(std::time::SystemTime::now()),
        owner: observe::process::user_name(),
        annotations: plan.init.annotations.iter().cloned().collect(),
        cgroups,
        intel_rdt: None,
        end: None,
        poststop: !plan.host.hooks.poststop.is_empty(),
        namespaces: plan.host.new_namespaces | joined,
        shares_pids: plan.host.new_namespaces & libc::CLONE_NEWPID as u64 == 0,
    }
}

/// The socket on which init will wait for `hearth start`.
fn listen(dir: &Dir) -> Result<OwnedFd> {
    let fail = |call| Error::path(call, dir.path().join(crate::store::START_SOCKET));
    let socket = rustix::net::socket_with(AddressFamily::UNIX, channel::KIND, SocketFlags::CLOEXEC, None)
        .map_err(fail("socket"))?;
    let address = SocketAddrUnix::new(dir.start_socket()).map_err(fail("address"))?;
    rustix::net::bind(&socket, &address).map_err(fail("bind"))?;
    rustix::net::listen(&socket, 8).map_err(fail("listen"))?;
    Ok(socket)
}

/// The network namespace that was made ahead goes to init, and the host's devices into it, or into the one that init
/// was born in or has joined.
fn give_network(spawned: &Spawned, plan: &Plan, ahead: Option<Ahead>) -> Result<()> {
    let devices = &plan.host.net_devices;
    if let Some(ahead) = ahead {
        let namespace = ahead.wait()?;
        if !devices.is_empty() {
            net_devices::take(devices, namespace.as_fd())?;
        }
        return spawned.tell(&ToInit::Network, &[namespace.as_fd()]);
    }
    if devices.is_empty() {
        return Ok(());
    }
    let path = format!("/proc/{}/ns/net", number(spawned));
    let namespace = std::fs::File::open(&path).map_err(Error::path("open", path))?;
    net_devices::take(devices, namespace.as_fd())
}

/// Appears complete or not at all.
pub(super) fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let bad = || Error::invalid("--pid-file", path.display().to_string(), "the path of a file");
    let mut draft = std::ffi::OsString::from(".");
    draft.push(path.file_name().ok_or_else(bad)?);
    let draft = path.with_file_name(draft);
    std::fs::write(&draft, pid.to_string()).map_err(Error::path("write", &draft))?;
    std::fs::rename(&draft, path).map_err(Error::path("rename", path))
}
