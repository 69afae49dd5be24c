//! `checkpoint`: a container's processes become files. criu does it; what it needs to know of the container, and what
//! must be true of the container afterwards, is here.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oci_spec::runtime::LinuxNamespaceType as Ns;

use super::{Container, Status, delete, notify};
use crate::bundle::load;
use crate::bundle::plan::{self, Plan};
use crate::isolate::criu::images::Images;
use crate::isolate::criu::{self, Feature, Field, Session, Verb, descriptors, mounts};
use crate::isolate::tree::Tree;
use crate::observe::log;
use crate::{Error, Result};

const LOG: &str = "dump.log";

#[derive(Debug)]
pub struct Options {
    pub images: Images,
    /// Earlier images, relative to these.
    pub parent: Option<String>,
    pub leave_running: bool,
    pub tcp_skip_in_flight: bool,
    pub link_remap: bool,
    pub pre_dump: bool,
    /// Told by a zero byte when lazy pages can be asked for.
    pub status_fd: Option<RawFd>,
    pub page_server: Option<(String, u16)>,
}

pub fn checkpoint(container: &mut Container, options: &Options) -> Result<()> {
    criu::require_root()?;
    container.lock()?;
    let status = container.status()?;
    if !matches!(status, Status::Running | Status::Paused) {
        let refusal = format!("container {} cannot be checkpointed in {status} state", container.dir.id());
        return Err(Error::WrongState { refusal });
    }
    let mut plan = stored_plan(container)?;
    notify::recall(&mut plan, &container.dir);
    check(&plan)?;
    let criu = options.images.criu()?;
    if options.pre_dump {
        criu.check_feature(Feature::MemoryTracking)?;
    }
    if options.images.lazy_pages {
        criu.check_feature(Feature::LazyPages)?;
    }
    let mut ready = options.status_fd.map(status_pipe).transpose()?;
    options.images.make()?;
    check_parent(options)?;
    let open = options.images.open(LOG)?;
    let request = request(container, &plan, options, &open)?;
    let verb = if options.pre_dump { Verb::PreDump } else { Verb::Dump };
    let done = Session::start(&criu, None)?.carry_out(verb, &request, &open.log, |notice| {
        if notice.script == "status-ready"
            && let Some(pipe) = ready.take()
        {
            rustix::io::write(&pipe, &[0]).map_err(Error::sys("write to --status-fd"))?;
        }
        Ok(())
    });
    let stays = options.leave_running || options.pre_dump;
    if status == Status::Running && (stays || done.is_err()) {
        // A criu that was killed has thawed nothing.
        let thawed = container.record()?.cgroups.thaw();
        done.and(thawed)
    } else {
        done?;
        if stays { Ok(()) } else { delete::destroy(container) }
    }
}

fn stored_plan(container: &Container) -> Result<Plan> {
    let record = container.record()?;
    let bundle = load::understand(record.bundle.clone(), container.dir.read_config()?)?;
    plan::plan(&record.id, &bundle).map_err(|error| error.at("config.json"))
}

/// What criu would drop in silence.
pub(super) fn check(plan: &Plan) -> Result<()> {
    let refuse = |field: &str, value: &str| {
        Err(Error::invalid(field, value, "none in a container that is checkpointed, for criu would lose it"))
    };
    if plan.init.common.landlock.is_some() {
        return refuse("annotations org.hearth.landlock.*", "rules");
    }
    if plan.init.reaper {
        return refuse("annotation org.hearth.init", "an init of Hearth's");
    }
    match &plan.host.seccomp_agent {
        Some(_) => refuse("linux.seccomp.listenerPath", "a listener"),
        None => Ok(()),
    }
}

fn check_parent(options: &Options) -> Result<()> {
    let Some(parent) = &options.parent else { return Ok(()) };
    let field = "--parent-path";
    if Path::new(parent).is_absolute() {
        return Err(Error::invalid(field, parent, "a path relative to --image-path"));
    }
    if options.images.path.join(parent).is_dir() {
        return Ok(());
    }
    Err(Error::invalid(field, parent, "an existing directory, relative to --image-path"))
}

fn status_pipe(number: RawFd) -> Result<OwnedFd> {
    let bad =
        || Error::invalid("--status-fd", number.to_string(), "an open descriptor that can be written to");
    let pipe =
        Some(number).filter(|number| *number > 2).and_then(crate::sys::fd::inherited).ok_or_else(bad)?;
    let flags = rustix::fs::fcntl_getfl(&pipe).map_err(Error::sys("fcntl"))?;
    if flags.intersects(rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::RDWR) {
        Ok(pipe)
    } else {
        Err(bad())
    }
}

fn request(
    container: &Container,
    plan: &Plan,
    options: &Options,
    open: &criu::images::Open,
) -> Result<criu::Options> {
    let record = container.record()?;
    let pid = record.process.map_or(0, |process| process.pid);
    let config = record.annotations.get("org.criu.config").map(String::as_str);
    let mut request = options
        .images
        .options(open, config)
        .number(Field::Pid, u64::from(pid.unsigned_abs()))
        .text(Field::Root, &mounts::text(&record.rootfs)?)
        .flag(Field::LeaveRunning, options.leave_running)
        .flag(Field::TcpSkipInFlight, options.tcp_skip_in_flight)
        .flag(Field::LinkRemap, options.link_remap);
    if let Some(dir) = record.cgroups.freezer_dir() {
        request = request.text(Field::FreezeCgroup, &mounts::text(&dir)?);
    }
    if let Some((address, port)) = &options.page_server {
        request = request.numbered(Field::PageServer, address, i32::from(*port));
    }
    if let Some(parent) = &options.parent {
        request = request.text(Field::ParentImage, parent).flag(Field::TrackMemory, true);
    }
    for (kind, path) in plan.host.joined.iter().filter(|(kind, _)| matches!(kind, Ns::Network | Ns::Pid)) {
        let inode = std::fs::metadata(path).map_err(Error::path("stat namespace", path))?.ino();
        request = request.text(Field::External, &format!("{}[{inode}]:{}", short(*kind), key(*kind)));
    }
    if options.pre_dump {
        return Ok(request);
    }
    let names = descriptors::of(pid, &record.cgroups.processes()?)?;
    descriptors::write(open.images.as_fd(), &names)?;
    request =
        descriptors::external(&names).fold(request, |request, name| request.text(Field::External, name));
    let root = format!("/proc/{pid}/root");
    let root = std::fs::File::open(&root).map_err(Error::path("open", root))?;
    for (point, name) in mounts::at_dump(plan, &record.cgroups.view(), &Tree::new(root.into())) {
        log::debug(&format!("external mount {} as {}", point.display(), name.display()));
        request = request.pair(Field::ExternalMount, &mounts::text(&point)?, &mounts::text(&name)?);
    }
    Ok(request)
}

/// What a namespace that others own is called in the images, as in runc.
pub(super) fn key(kind: Ns) -> &'static str {
    if kind == Ns::Pid { "extRootPidNS" } else { "extRootNetNS" }
}

/// The kernel's own name, in /proc/PID/ns.
pub(super) fn short(kind: Ns) -> &'static str {
    match kind {
        Ns::Mount => "mnt",
        Ns::Cgroup => "cgroup",
        Ns::Uts => "uts",
        Ns::Ipc => "ipc",
        Ns::User => "user",
        Ns::Pid => "pid",
        Ns::Network => "net",
        Ns::Time => "time",
    }
}
