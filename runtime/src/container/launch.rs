//! `launch`: a program in a sandbox of the warm pool, or, where there is none for it, in one that is made on the
//! spot. Both are claimed by the same message.

use std::fs::DirBuilder;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::{OpenTreeFlags, open_tree};
use serde::Serialize;

use super::create::{self, Created};
use super::run::{Signals, code, reap};
use super::{Container, delete, park};
use crate::bundle::validate;
use crate::isolate::cgroup::Placement;
use crate::isolate::rights;
use crate::observe::{Timeline, now};
use crate::pool::claim::{Claim, Inherited, SECRET_LIMIT, Terminal};
use crate::pool::client::{Client, Declared, POOLS};
use crate::pool::protocol::{Granted, Launch, Limits, Path as How, Reply, Request, Status, Target};
use crate::process::channel::{self, ToInit, ToRuntime};
use crate::store::Root;
use crate::store::record::End;
use crate::sys::fd::standard;
use crate::{Error, Result};

#[derive(Debug, Clone)]
pub struct Options {
    pub target: Target,
    pub id: Option<String>,
    pub claim: Claim,
    /// Host paths of the claim's mounts, and whether what is mounted below them comes along.
    pub sources: Vec<(PathBuf, bool)>,
    /// Host paths of the claim's secrets.
    pub secrets: Vec<PathBuf>,
    /// Path of a network namespace.
    pub network: Option<PathBuf>,
    pub limits: Limits,
    pub pool: Pool,
    pub timeout: Option<Duration>,
    /// Return when the program runs. What it says is for `logs`.
    pub detach: bool,
    /// The program gets the caller's standard input instead of an empty one.
    pub stdin: bool,
    /// Tell how it went, as a line of JSON on standard error.
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    Auto,
    Only,
    Never,
}

/// How it went.
#[derive(Debug, Serialize)]
struct Report {
    id: String,
    path: How,
    /// Why not by the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(flatten)]
    end: End,
    /// CLOCK_MONOTONIC in nanoseconds, when the command began.
    started: u64,
    /// Microseconds since then, at the end of each step.
    timeline: Vec<(String, u64)>,
}

/// A claimed sandbox, and who is its parent.
enum Lease {
    /// While the client lives, its program does.
    Warm {
        granted: Granted,
        pidfd: OwnedFd,
        status: OwnedFd,
        _client: Client,
    },
    Cold {
        created: Box<Created>,
        why: String,
    },
}

pub fn launch(root: &Root, options: &Options) -> Result<u8> {
    options.claim.validate()?;
    let signals = Signals::block()?;
    let mut timeline = Timeline::new(options.json);
    let mut options = options;
    let named;
    let mut log = None;
    if options.detach {
        // What it says has a name before anybody else gives it one.
        let id = options.id.clone().unwrap_or_else(|| new_id(&options.target));
        validate::id(&id)?;
        log = Some(root.logs().join(format!("{id}.log")));
        named = Options { id: Some(id), ..options.clone() };
        options = &named;
    }
    let opened = Opened::open(options, log.as_deref())?;
    let (lease, terminal) = start(root, options, &opened, &mut timeline).inspect_err(|_| {
        // Nobody knows its name.
        let _ = log.map(std::fs::remove_file);
    })?;
    drop(opened);
    timeline.mark("program executed");
    if options.detach {
        let line = format!("{}\n", lease.told().2);
        std::io::stdout().write_all(line.as_bytes()).map_err(Error::sys("write to standard output"))?;
        return Ok(0);
    }
    attend(root, options, &lease, terminal, &signals, timeline)
}

/// Stays with the program until its end: the exit status of the command.
fn attend(
    root: &Root,
    options: &Options,
    lease: &Lease,
    terminal: Option<OwnedFd>,
    signals: &Signals,
    mut timeline: Timeline,
) -> Result<u8> {
    let deadline = options.timeout.map(|timeout| Instant::now() + timeout);
    let pidfd = lease.pidfd();
    let timed_out = signals.wait(lease.ended(), pidfd, terminal, deadline)?;
    timeline.mark("program ended");
    let end = lease.end(root)?;
    let (how, why, id) = lease.told();
    let wait = end.map_or(0, |status| status.wait);
    let end = match end {
        _ if timed_out => End::TimedOut,
        Some(Status { wait, ooms }) => End::new(wait, ooms),
        None => End::Unknown,
    };
    if options.json {
        let marks = timeline.take();
        let started = marks.first().map_or(0, |(_, time)| *time);
        let timeline = microseconds(marks);
        let report = Report { id, path: how, why, end: end.clone(), started, timeline };
        let line = serde_json::to_string(&report);
        let line = line.map_err(|source| Error::Json { what: "the answer".into(), source })?;
        crate::observe::log::timeline(&line);
    }
    Ok(match end {
        // As timeout(1).
        End::TimedOut => 124,
        End::Unknown => 255,
        _ => code(wait),
    })
}

/// `run --pool`: None where it is to be an ordinary run.
pub fn run(root: &Root, asked: &create::Options, keep: bool, pool: Pool) -> Result<Option<u8>> {
    let own =
        asked.detach || keep || asked.init || asked.no_pivot || asked.no_new_keyring || asked.systemd_cgroup;
    if pool == Pool::Never {
        return Ok(None);
    }
    if own || asked.preserve_fds > 0 || asked.console_socket.is_some() {
        return unless_only(pool, "a flag that a parked sandbox cannot follow".into()).map(|_| None);
    }
    let bundle = std::path::absolute(&asked.bundle).map_err(Error::path("resolve", &asked.bundle))?;
    let options = Options {
        target: Target::Bundle(crate::bundle::process::text(&bundle, "--bundle")?),
        id: Some(asked.id.clone()),
        claim: Claim {
            terminal: Terminal::AsBundle,
            inherited: Some(inherited()?),
            ignored_signals: crate::observe::process::ignored_signals()?,
            ..Claim::default()
        },
        sources: Vec::new(),
        secrets: Vec::new(),
        network: None,
        limits: Limits::default(),
        pool,
        timeout: None,
        detach: false,
        stdin: true,
        json: asked.timeline,
    };
    options.claim.validate()?;
    let signals = Signals::block()?;
    let mut timeline = Timeline::new(options.json);
    let opened = Opened::open(&options, None)?;
    let (lease, terminal) = match parked(root, &options, &opened, &mut timeline)? {
        Answer::Warm(running) => running,
        Answer::Cold { why, .. } => {
            signals.unblock()?;
            return unless_only(pool, why).map(|_| None);
        }
    };
    drop(opened);
    if let Some(path) = &asked.pid_file {
        create::write_pid_file(path, lease.pid())?;
    }
    timeline.mark("program executed");
    attend(root, &options, &lease, terminal, &signals, timeline).map(Some)
}

/// What this process would hand down.
fn inherited() -> Result<Inherited> {
    let limit = |value: Option<u64>| value.unwrap_or(u64::MAX);
    let score = read_own("oom_score_adj")?;
    Ok(Inherited {
        rlimits: rights::LIMITS
            .iter()
            .map(|(number, _, kind)| {
                let now = rustix::process::getrlimit(*kind);
                (*number, limit(now.current), limit(now.maximum))
            })
            .collect(),
        niceness: rustix::process::getpriority_process(None).map_err(Error::sys("getpriority"))?,
        oom_score_adj: score.trim().parse().unwrap_or(0),
    })
}

fn read_own(file: &str) -> Result<String> {
    let path = format!("/proc/self/{file}");
    std::fs::read_to_string(&path).map_err(Error::path("read", path))
}

fn new_id(target: &Target) -> String {
    let name = match target {
        Target::Pool(name) => name,
        Target::Bundle(_) => "launch",
    };
    format!("{name}-{:x}-{:x}", std::process::id(), now())
}

/// Why it is to be cold, unless the caller wants only the pool.
fn unless_only(pool: Pool, why: String) -> Result<String> {
    if pool != Pool::Only {
        return Ok(why);
    }
    let source = std::io::Error::new(std::io::ErrorKind::WouldBlock, why);
    Err(Error::Refused { what: "--pool only".into(), source })
}

/// From the pool, or else on the spot.
fn start(root: &Root, options: &Options, opened: &Opened, timeline: &mut Timeline) -> Result<Running> {
    let answer = match options.pool {
        Pool::Never => Answer::Cold { why: "--pool never".into(), bundle: None },
        Pool::Auto | Pool::Only => parked(root, options, opened, timeline)?,
    };
    let (why, bundle) = match answer {
        Answer::Warm(running) => return Ok(running),
        Answer::Cold { why, bundle } => (unless_only(options.pool, why)?, bundle),
    };
    let bundle = match (bundle, &options.target) {
        (Some(bundle), _) => bundle,
        (None, Target::Bundle(path)) => path.clone().into(),
        (None, Target::Pool(name)) => {
            let declared = Declared::read(Path::new(POOLS), name);
            declared
                .ok_or_else(|| Error::invalid("pool", name, "a declared pool, or the path of a bundle"))?
                .bundle
        }
    };
    let (report, theirs) = channel::pair().map_err(Error::sys("socketpair"))?;
    let lease = cold(root, options, bundle, &opened.descriptors(&theirs, &options.claim), timeline, why)?;
    drop(theirs);
    match until_executed(&report, timeline) {
        Ok(terminal) => Ok((lease, terminal)),
        Err(error) => {
            lease.give_back()?;
            Err(error)
        }
    }
}

/// In a parked sandbox. One that died before it took the claim makes no failed launch.
fn parked(
    root: &Root,
    options: &Options,
    opened: &Opened,
    timeline: &mut Timeline,
) -> Result<Answer<Running>> {
    let (report, theirs) = channel::pair().map_err(Error::sys("socketpair"))?;
    let answer = ask(root, options, &opened.descriptors(&theirs, &options.claim), timeline)?;
    drop(theirs);
    let lease = match answer {
        Answer::Warm(lease) => lease,
        Answer::Cold { why, bundle } => return Ok(Answer::Cold { why, bundle }),
    };
    match until_executed(&report, timeline) {
        Ok(terminal) => Ok(Answer::Warm((lease, terminal))),
        Err(Error::InitGone) => Ok(Answer::Cold { why: "the parked sandbox was dead".into(), bundle: None }),
        Err(error) => {
            lease.give_back()?;
            Err(error)
        }
    }
}

fn microseconds(marks: Vec<(String, u64)>) -> Vec<(String, u64)> {
    let first = marks.first().map_or(0, |(_, time)| *time);
    marks.into_iter().map(|(name, time)| (name, time.saturating_sub(first) / 1000)).collect()
}

/// What the claim brings, opened with the caller's own rights.
struct Opened {
    /// Where the program does not get the caller's.
    input: Option<OwnedFd>,
    log: Option<OwnedFd>,
    mounts: Vec<OwnedFd>,
    secrets: Vec<OwnedFd>,
    network: Option<OwnedFd>,
}

impl Opened {
    fn open(options: &Options, log: Option<&Path>) -> Result<Self> {
        let null = || rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let input = (!options.stdin).then(null).transpose().map_err(Error::path("open", "/dev/null"))?;
        Ok(Self {
            input,
            log: log.map(create_log).transpose()?,
            mounts: options
                .sources
                .iter()
                .map(|(path, recursive)| mount(path, *recursive))
                .collect::<Result<_>>()?,
            secrets: options.secrets.iter().map(|path| secret(path)).collect::<Result<_>>()?,
            network: options.network.as_deref().map(network).transpose()?,
        })
    }

    /// In the order of [`ToInit::Claim`].
    fn descriptors<'a>(&'a self, report: &'a OwnedFd, claim: &Claim) -> Vec<BorrowedFd<'a>> {
        let mut fds = vec![report.as_fd()];
        if claim.has_streams() {
            let input = self.input.as_ref().map_or_else(|| standard(0), AsFd::as_fd);
            let output = |number| self.log.as_ref().map_or_else(|| standard(number), AsFd::as_fd);
            fds.extend([input, output(1), output(2)]);
        }
        fds.extend(self.mounts.iter().chain(&self.secrets).chain(&self.network).map(AsFd::as_fd));
        fds
    }
}

/// The program writes it by itself, at its end, whoever else does.
fn create_log(path: &Path) -> Result<OwnedFd> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::path("mkdir", dir))?;
    }
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let log = rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::from_raw_mode(0o600));
    log.map_err(Error::path("create", path))
}

/// Whether it is one, the kernel tells init.
fn network(path: &Path) -> Result<OwnedFd> {
    let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    namespace.map_err(Error::path("open --network", path))
}

fn mount(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags).map_err(Error::path("open --mount src", path))
}

/// A sealed copy: what the program gets is what was read now.
fn secret(path: &Path) -> Result<OwnedFd> {
    let fail = |call| Error::path::<std::io::Error>(call, path);
    let source = std::fs::File::open(path).map_err(fail("open --secret"))?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("secret", flags).map_err(Error::sys("memfd_create"))?;
    let mut copy = std::fs::File::from(copy);
    let length = std::io::copy(&mut std::io::Read::take(source, SECRET_LIMIT + 1), &mut copy);
    if length.map_err(fail("read --secret"))? > SECRET_LIMIT {
        return Err(Error::invalid("--secret", path.display().to_string(), "at most 1 MiB"));
    }
    copy.seek(SeekFrom::Start(0)).map_err(fail("rewind --secret"))?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals).map_err(Error::sys("seal"))?;
    Ok(copy.into())
}

enum Answer<T> {
    Warm(T),
    Cold { why: String, bundle: Option<PathBuf> },
}

/// A program that runs, and its terminal, where it has one.
type Running = (Lease, Option<OwnedFd>);

fn ask(
    root: &Root,
    options: &Options,
    fds: &[BorrowedFd<'_>],
    timeline: &mut Timeline,
) -> Result<Answer<Lease>> {
    let client = match Client::connect(root) {
        Ok(client) => client,
        Err(error) => return Ok(Answer::Cold { why: error.chain(), bundle: None }),
    };
    timeline.mark("connected");
    // A client that stays keeps its own deadline.
    let timeout = options.timeout.filter(|_| options.detach);
    let request = Request::Launch(Box::new(Launch {
        target: options.target.clone(),
        id: options.id.clone(),
        limits: options.limits,
        claim: options.claim.clone(),
        only: options.pool == Pool::Only,
        detach: options.detach,
        timeout: timeout.and_then(|timeout| u64::try_from(timeout.as_millis()).ok()),
        home: options.claim.inherited.as_ref().map(|_| read_own("cgroup")).transpose()?,
    }));
    match client.ask(&request, fds) {
        Ok((Reply::Granted(granted), fds)) => {
            let Ok([pidfd, status]) = <[OwnedFd; 2]>::try_from(fds) else { return Err(Error::InitGone) };
            let marks = [("request read", granted.received), ("claim passed on", granted.claimed)];
            timeline.add(marks.map(|(name, time)| (name.to_owned(), time)).into());
            timeline.mark("granted");
            Ok(Answer::Warm(Lease::Warm { granted, pidfd, status, _client: client }))
        }
        Ok((Reply::Cold { reason, bundle }, _)) => {
            Ok(Answer::Cold { why: reason, bundle: bundle.map(PathBuf::from) })
        }
        Ok((Reply::Refused { reason }, _)) => {
            let source = std::io::Error::other(reason);
            Err(Error::Refused { what: "hearthd refuses".into(), source })
        }
        Ok(_) => Ok(Answer::Cold { why: "hearthd answered something else".into(), bundle: None }),
        Err(error) => Ok(Answer::Cold { why: error.chain(), bundle: None }),
    }
}

fn cold(
    root: &Root,
    options: &Options,
    bundle: PathBuf,
    fds: &[BorrowedFd<'_>],
    timeline: &mut Timeline,
    why: String,
) -> Result<Lease> {
    let id = options.id.clone().unwrap_or_else(|| new_id(&options.target));
    if options.detach && options.timeout.is_some() {
        let reason = format!("with --detach, where the launch is cold ({why})");
        return Err(Error::invalid("--timeout", reason, "a parked sandbox, whose daemon keeps the deadline"));
    }
    let mut asked = park::options(&id, options.json);
    asked.bundle = bundle;
    let mut created = create::create(root, &asked)?;
    timeline.add(created.timeline.take());
    let lease = |created| Lease::Cold { created: Box::new(created), why };
    let claimed = limit(&mut created.container, options.limits).and_then(|()| {
        let pid = created.spawned.child.pid.as_raw_nonzero().get();
        let message = ToInit::Claim { pid, claim: Box::new(options.claim.clone()) };
        channel::send(created.spawned.socket.as_fd(), &message, fds)
            .map_err(Error::sys("send the claim to init"))
    });
    if let Err(error) = claimed {
        lease(created).give_back()?;
        return Err(error);
    }
    timeline.mark("claim passed on");
    Ok(lease(created))
}

fn limit(container: &mut Container, limits: Limits) -> Result<()> {
    container.record.as_mut().map_or(Ok(()), |record| limits.apply(&mut record.cgroups))
}

impl Limits {
    /// As config.json would have them; None where there is nothing to write.
    pub fn resources(&self) -> Option<LinuxResources> {
        const PERIOD: u64 = 100_000;
        if *self == Self::default() {
            return None;
        }
        let mut resources = LinuxResources::default();
        resources.set_devices(None);
        if let Some(limit) = self.memory {
            let mut memory = LinuxMemory::default();
            memory.set_limit(Some(limit));
            resources.set_memory(Some(memory));
        }
        if let Some(thousandths) = self.cpu {
            let mut cpu = LinuxCpu::default();
            cpu.set_period(Some(PERIOD));
            cpu.set_quota(i64::try_from(thousandths.saturating_mul(PERIOD / 1000)).ok());
            resources.set_cpu(Some(cpu));
        }
        if let Some(limit) = self.pids {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            resources.set_pids(Some(pids));
        }
        Some(resources)
    }

    /// Into the cgroup of a parked sandbox.
    pub fn apply(&self, cgroups: &mut Placement) -> Result<()> {
        self.resources().map_or(Ok(()), |resources| cgroups.update(&resources).map(drop))
    }
}

/// The program runs when the stream ends, after init has said that all is in force.
fn until_executed(report: &OwnedFd, timeline: &mut Timeline) -> Result<Option<OwnedFd>> {
    let mut terminal = None;
    let mut ready = false;
    loop {
        match channel::receive::<ToRuntime>(report.as_fd()).map_err(Error::sys("receive from init"))? {
            Some((ToRuntime::Ready { steps }, _)) => {
                timeline.add(steps);
                ready = true;
            }
            Some((ToRuntime::Console, fds)) => terminal = fds.into_iter().next(),
            Some((ToRuntime::Failed { step, message }, _)) => return Err(Error::Init { step, message }),
            None if ready => return Ok(terminal),
            _ => return Err(Error::InitGone),
        }
    }
}

impl Lease {
    fn pid(&self) -> i32 {
        match self {
            Self::Warm { granted, .. } => granted.pid,
            Self::Cold { created, .. } => created.spawned.child.pid.as_raw_nonzero().get(),
        }
    }

    fn pidfd(&self) -> &OwnedFd {
        match self {
            Self::Warm { pidfd, .. } => pidfd,
            Self::Cold { created, .. } => &created.spawned.child.pidfd,
        }
    }

    /// Readable once the end is known.
    fn ended(&self) -> BorrowedFd<'_> {
        match self {
            Self::Warm { status, .. } => status.as_fd(),
            Self::Cold { created, .. } => created.spawned.child.pidfd.as_fd(),
        }
    }

    fn told(&self) -> (How, Option<String>, String) {
        match self {
            Self::Warm { granted, .. } => (granted.path, None, granted.id.clone()),
            Self::Cold { created, why } => (How::Cold, Some(why.clone()), created.container.dir.id()),
        }
    }

    /// How the program ended. What is left of the sandbox is taken away here or by the daemon.
    fn end(&self, root: &Root) -> Result<Option<Status>> {
        match self {
            Self::Cold { created, .. } => {
                let wait = reap(created.spawned.child.pid)?;
                let record = created.container.record()?;
                let ooms = if libc::WIFSIGNALED(wait) { record.cgroups.oom_count().unwrap_or(0) } else { 0 };
                destroy(&created.container)?;
                Ok(Some(Status { wait, ooms }))
            }
            Self::Warm { granted, pidfd, status, .. } => {
                let told = crate::pool::protocol::receive(status.as_fd(), &mut Vec::new());
                if let Ok(Some((status, _))) = told {
                    return Ok(Some(status));
                }
                // The forker died before the program: the daemon will know from the reaper.
                until_dead(pidfd)?;
                Ok((0..ASKED).find_map(|_| {
                    ask_for_end(root, &granted.id).or_else(|| {
                        std::thread::sleep(BETWEEN);
                        None
                    })
                }))
            }
        }
    }

    /// A sandbox whose claim failed: nobody uses it.
    fn give_back(&self) -> Result<()> {
        match self {
            Self::Cold { created, .. } => {
                let _ = crate::sys::kill::pidfd_send(&created.spawned.child.pidfd, libc::SIGKILL);
                let _ = reap(created.spawned.child.pid);
                destroy(&created.container)
            }
            Self::Warm { pidfd, .. } => {
                let _ = crate::sys::kill::pidfd_send(pidfd, libc::SIGKILL);
                Ok(())
            }
        }
    }
}

fn destroy(container: &Container) -> Result<()> {
    match container.dir.lock() {
        // A `delete --force` was faster.
        Err(Error::NoContainer { .. }) => Ok(()),
        locked => locked.and_then(|()| delete::destroy(container)),
    }
}

/// How often the daemon is asked for a status that it may not have yet, or while it is being started again.
const ASKED: u32 = 100;
const BETWEEN: Duration = Duration::from_millis(20);

fn ask_for_end(root: &Root, id: &str) -> Option<Status> {
    match Client::connect(root).ok()?.ask(&Request::End { id: id.to_owned() }, &[]).ok()? {
        (Reply::End(status), _) => status,
        _ => None,
    }
}

fn until_dead(pidfd: &OwnedFd) -> Result<()> {
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map(drop).map_err(Error::sys("poll")),
        }
    }
}
