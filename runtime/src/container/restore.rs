//! `restore`: a container whose first process is not made of a program but, by criu, of files. All around it is as in
//! `create`: what is made is recorded before, and taken back on failure; limits and device rules are in force before
//! anything of the container's own runs. criu itself runs in the container's groups, and so does what it makes.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::LinuxNamespaceType as Ns;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::create::{self, Made, hook_state};
use super::run::{self, Signals};
use super::{checkpoint, console, notify};
use crate::bundle::load::{self, Bundle};
use crate::bundle::plan::{self, Plan};
use crate::isolate::cgroup;
use crate::isolate::criu::images::{Images, Open};
use crate::isolate::criu::stage::Stage;
use crate::isolate::criu::{self, Criu, Field, Notice, Place, Session, Verb, descriptors, mounts};
use crate::isolate::sources::Sources;
use crate::isolate::{hooks, intel_rdt, net_devices, network};
use crate::observe::log;
use crate::store::record::{Process, Record};
use crate::store::{Dir, Root};
use crate::{Error, Result};

const LOG: &str = "restore.log";
/// What criu is to see, in the container's directory: see [`Stage`].
const STAGE: &str = "criu";

#[derive(Debug)]
pub struct Options {
    /// The container, as `create` is asked for it.
    pub container: create::Options,
    pub images: Images,
    pub detach: bool,
    pub lsm_profile: Option<String>,
    pub lsm_mount_context: Option<String>,
}

/// The exit status of the command: the container's, or 0 when detached.
pub fn restore(root: &Root, options: &Options) -> Result<u8> {
    criu::require_root()?;
    if options.container.systemd_cgroup {
        let expected = "cgroupfs: a container is not restored into a unit of systemd's";
        return Err(Error::invalid("--systemd-cgroup", "systemd", expected));
    }
    let id = &options.container.id;
    crate::bundle::validate::id(id)?;
    let bundle = load::bundle(&options.container.bundle)?;
    let mut plan = plan::plan(id, &bundle).map_err(|error| error.at("config.json"))?;
    bundle.warnings.iter().for_each(|warning| log::warn(warning));
    let console_socket = options.container.console_socket.as_deref();
    console::requirements(plan.init.process.terminal.is_some(), !options.detach, console_socket)?;
    checkpoint::check(&plan)?;
    let names = descriptors::read(options.images.open(LOG)?.images.as_fd())?;
    let criu = options.images.criu()?;
    // Before the first process: a signal that arrives meanwhile waits for it.
    let signals = if options.detach { None } else { Some(Signals::block()?) };
    let mut made = Made::new(create::reserve(root, id)?);
    let terminal = all(&mut made, &criu, options, &bundle, &mut plan, &names)?;
    let container = made.keep()?;
    let Some(signals) = signals else { return Ok(0) };
    let process = container.record()?.process.ok_or(Error::InitGone)?;
    let pid = Pid::from_raw(process.pid).ok_or(Error::InitGone)?;
    // It is a child of ours that nobody has reaped.
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(Error::sys("pidfd_open"))?;
    container.dir.unlock()?;
    signals.wait(pidfd.as_fd(), &pidfd, terminal, None)?;
    let status = run::reap(pid)?;
    run::clear(container)?;
    Ok(run::code(status))
}

/// Gives the terminal's master, where it was not sent to a console socket.
fn all(
    made: &mut Made,
    criu: &Criu,
    options: &Options,
    bundle: &Bundle,
    plan: &mut Plan,
    names: &[String],
) -> Result<Option<OwnedFd>> {
    let dir = made.dir.as_ref().ok_or(Error::InitGone)?;
    notify::prepare(plan, dir, 0)?;
    let stage = dir.path().join(STAGE);
    std::fs::create_dir(&stage).map_err(Error::path("mkdir", &stage))?;
    let sources = Sources::open(&plan.host, &plan.init)?;
    let stage = Stage::prepare(&stage, plan, sources)?;
    let placement = create::place(&options.container, plan)?;
    let record = made.record.insert(create::record(&options.container, bundle, plan, placement));
    let rdt = plan.host.intel_rdt.as_ref();
    record.intel_rdt = rdt.map(|rdt| intel_rdt::plan(rdt, &record.id)).transpose()?;
    dir.write_first(record)?;
    dir.write_config(&bundle.text)?;
    let resources = plan.host.resources.as_ref();
    let declared = bundle.spec.linux().as_ref().and_then(|linux| linux.devices().as_deref());
    let rules = cgroup::device_rules(resources, declared.unwrap_or_default())?;
    let mut leaf = record.cgroups.create(resources)?;
    let inside = stage.enter()?;
    let open = options.images.open(LOG)?;
    let (request, keep) = request(record, plan, options, &open, names, &stage)?;
    let session = Session::start(criu, Some(Place { leaf: &leaf, keep: &keep }))?;
    drop(inside);
    // criu waits for its request.
    record.cgroups.enclose(session.pid(), resources, &mut leaf)?;
    record.cgroups.restrict(&mut leaf, &rules)?;
    leaf.notes.iter().for_each(|note| log::warn(note));
    let request = with_groups(request, session.pid())?;
    let mut terminal = None;
    session.carry_out(Verb::Restore, &request, &open.log, |notice| {
        heed(notice, dir, record, plan, options, &mut terminal)
    })?;
    let pid = record.process.ok_or(Error::InitGone)?.pid;
    drop((leaf, stage));
    // Empty: what was mounted there was criu's alone.
    let _ = std::fs::remove_dir(dir.path().join(STAGE));
    hooks::run("poststart", &plan.host.hooks.poststart, &hook_state(&plan.init, "running", pid), None)?;
    Ok(terminal)
}

/// criu waits meanwhile.
fn heed(
    notice: Notice,
    dir: &Dir,
    record: &mut Record,
    plan: &Plan,
    options: &Options,
    terminal: &mut Option<OwnedFd>,
) -> Result<()> {
    match notice.script.as_str() {
        // Namespaces and the first process are there, and nothing else.
        "setup-namespaces" => {
            set_up_network(plan, notice.pid)?;
            let state = hook_state(&plan.init, "creating", notice.pid);
            hooks::run("prestart", &plan.host.hooks.prestart, &state, None)?;
            hooks::run("createRuntime", &plan.host.hooks.create_runtime, &state, None)
        }
        "orphan-pts-master" => {
            let master = notice.fds.into_iter().next().ok_or(Error::InitGone)?;
            *terminal = console::deliver(master, options.container.console_socket.as_deref())?;
            Ok(())
        }
        // Everything is there, and stands still.
        "post-restore" => {
            let pid = Pid::from_raw(notice.pid).ok_or(Error::InitGone)?;
            if let (Some(groups), Some(rdt)) = (&record.intel_rdt, &plan.host.intel_rdt) {
                groups.create(rdt, notice.pid)?;
            }
            // criu gives it a time namespace, asked or not: clocks go on where they stopped.
            let time = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/time")).ok();
            if time(&notice.pid.to_string()) != time("self") {
                record.namespaces |= libc::CLONE_NEWTIME as u64;
            }
            record.process = Some(Process::of(pid)?);
            create::publish(dir, record, &options.container)
        }
        // The last moment before it runs.
        "pre-resume" => check_rights(plan, record),
        _ => Ok(()),
    }
}

/// What criu leaves to us: a new network namespace comes back empty.
fn set_up_network(plan: &Plan, pid: i32) -> Result<()> {
    let devices = &plan.host.net_devices;
    if !plan.init.new_network && devices.is_empty() {
        return Ok(());
    }
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).map_err(Error::path("open", path))?;
    if plan.init.new_network {
        network::loopback_up_in(namespace.as_fd()).map_err(Error::sys("bring lo up"))?;
    }
    if devices.is_empty() { Ok(()) } else { net_devices::take(devices, namespace.as_fd()) }
}

/// A container whose filter did not come back must not run. Some versions of criu (3.17) drop no_new_privs, which
/// nobody can give back: it is told.
fn check_rights(plan: &Plan, record: &Record) -> Result<()> {
    let pid = record.process.ok_or(Error::InitGone)?.pid;
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).map_err(Error::path("read", path))?;
    let is_set = |name: &str, value: &str| {
        text.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.trim() == value))
    };
    if plan.init.common.seccomp.is_some() && !is_set("Seccomp:", "2") {
        record.cgroups.kill_all(libc::SIGKILL)?;
        return Err(Error::invalid("linux.seccomp", "a filter", "images that have one"));
    }
    if plan.init.process.no_new_privileges && !is_set("NoNewPrivs:", "1") {
        log::warn("criu did not restore process.noNewPrivileges");
    }
    Ok(())
}

/// And descriptors that criu needs to have.
fn request(
    record: &Record,
    plan: &Plan,
    options: &Options,
    open: &Open,
    names: &[String],
    stage: &Stage,
) -> Result<(criu::Options, Vec<OwnedFd>)> {
    let config = record.annotations.get("org.criu.config").map(String::as_str);
    let mut request = options
        .images
        .options(open, config)
        .flag(Field::EvasiveDevices, true)
        .flag(Field::Sibling, true)
        // The newer one wants one mount that all others of its peer group could be a part of.
        .flag(Field::OldMountEngine, true)
        .text(Field::Root, &mounts::text(&stage.root())?);
    for (name, source) in mounts::at_restore(plan, &record.cgroups.view(), stage) {
        request = request.pair(Field::ExternalMount, &mounts::text(&name)?, &mounts::text(&source)?);
    }
    for (name, number) in descriptors::inherited(names) {
        request = request.numbered(Field::InheritFd, name, number);
    }
    let mut keep = Vec::new();
    for (kind, path) in &plan.host.joined {
        match kind {
            Ns::Network | Ns::Pid => {
                let namespace: OwnedFd =
                    File::open(path).map_err(Error::path("open namespace", path))?.into();
                request = request.numbered(Field::InheritFd, checkpoint::key(*kind), namespace.as_raw_fd());
                keep.push(namespace);
            }
            Ns::Cgroup | Ns::Time => {
                let expected = "none of this kind to join: criu cannot";
                return Err(Error::invalid("linux.namespaces.path", path.display().to_string(), expected));
            }
            _ => request = request.pair(Field::JoinNamespace, checkpoint::short(*kind), &mounts::text(path)?),
        }
    }
    for (field, value) in
        [(Field::LsmProfile, &options.lsm_profile), (Field::LsmMountContext, &options.lsm_mount_context)]
    {
        if let Some(value) = value {
            request = request.text(field, value);
        }
    }
    Ok((request, keep))
}

/// The groups that criu was started in are what it takes for the container's outermost ones.
fn with_groups(request: criu::Options, pid: i32) -> Result<criu::Options> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text = std::fs::read_to_string(&path).map_err(Error::path("read", path))?;
    let groups = text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    Ok(groups.fold(request, |request, (controllers, path)| {
        controllers.split(',').fold(request, |request, name| request.pair(Field::CgroupRoot, name, path))
    }))
}
