//! The daemon: one thread that waits for clients, the forker and the time, and asks the policy what to do. It never
//! waits for any of them.
//!
//! `clients` answers requests, `sandboxes` carries out what the policy decides, `pools` knows the bundles,
//! `teardown` takes sandboxes away on a thread of its own, `housekeeping` is what is done every second.

mod clients;
mod housekeeping;
mod pools;
mod sandboxes;
mod scrape;
mod teardown;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hearth::container::run::Signals;
use hearth::observe::{log, now};
use hearth::pool::protocol;
use hearth::process::channel;
use hearth::store::Root;
use rustix::event::{Timespec, epoll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags};

use super::config::{LogLevel, Settings};
use super::dirs::Dirs;
use super::forker::PATIENCE;
use super::metrics::Metrics;
use super::policy::config::SECOND;
use super::policy::{Action, Event, Nanos, Policy};
use super::wire::{FromForker, ToForker};
use clients::{Clients, Own};
use pools::Pools;
use sandboxes::Sandboxes;
use scrape::Scrape;
use teardown::Teardown;

const LISTENER: u64 = 0;
const FORKER: u64 = 1;
const TEARDOWN: u64 = 2;
const SIGNALS: u64 = 3;
const METRICS: u64 = 4;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
/// A sandbox's pidfd, where the forker will not tell of its end any more.
const ORPHAN: u64 = 1 << 62;
/// Of someone who reads metrics: this and a number.
const READER: u64 = 1 << 61;
/// Of a client: this and its number.
const CLIENT: u64 = 1 << 63;

struct Daemon {
    dirs: Dirs,
    root: Root,
    epoll: OwnedFd,
    listener: OwnedFd,
    forker: Option<OwnedFd>,
    policy: Policy,
    metrics: Metrics,
    scrape: Option<Scrape>,
    socket: PathBuf,
    wake: Option<Nanos>,
    house_kept: Nanos,
    pools: Pools,
    sandboxes: Sandboxes,
    clients: Clients,
    teardown: Teardown,
    packet: Vec<u8>,
    own: Own,
    signals: Signals,
    /// Told to end: by then, whatever is left.
    stopping: Option<Instant>,
    _lock: OwnedFd,
}

pub fn main(settings: &Settings) -> io::Result<()> {
    let root = settings.root.as_path();
    log::open(None, settings.log.format.into(), settings.log.level == LogLevel::Debug)
        .map_err(io::Error::other)?;
    settings.check_served().map_err(io::Error::other)?;
    let dirs = Dirs::new(root);
    dirs.make()?;
    let lock = lock(&dirs)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let socket = settings.socket();
    let listener = listen(&socket)?;
    let add =
        |fd: &OwnedFd, token| epoll::add(&epoll, fd, epoll::EventData::new_u64(token), epoll::EventFlags::IN);
    add(&listener, LISTENER)?;
    // Before the first thread: the reaper is a child of ours.
    let forker = find_forker(&dirs)?;
    add(&forker, FORKER)?;
    // So that none of the threads is ended by one.
    let signals = Signals::block().map_err(io::Error::other)?;
    let teardown = Teardown::start(&dirs)?;
    epoll::add(&epoll, teardown.news(), epoll::EventData::new_u64(TEARDOWN), epoll::EventFlags::IN)?;
    epoll::add(&epoll, &signals, epoll::EventData::new_u64(SIGNALS), epoll::EventFlags::IN)?;
    let mut daemon = Daemon {
        root: Root::new(root).map_err(io::Error::other)?,
        dirs,
        listener,
        forker: Some(forker),
        policy: Policy::new(settings.policy()),
        metrics: Metrics::default(),
        scrape: settings.metrics.as_ref().map(|endpoint| Scrape::listen(endpoint, &epoll)).transpose()?,
        socket,
        epoll,
        wake: None,
        house_kept: 0,
        pools: Pools::new(&settings.pools),
        sandboxes: Sandboxes::default(),
        clients: Clients::default(),
        teardown,
        packet: Vec::new(),
        own: Own::look(),
        signals,
        stopping: None,
        _lock: lock,
    };
    daemon.sweep();
    daemon.declare_all();
    daemon.declare_more(&settings.declared);
    daemon.run()
}

/// One daemon a root.
fn lock(dirs: &Dirs) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(dirs.lock(), flags, Mode::from_raw_mode(0o600))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        io::Error::other(format!("{} is locked: a hearthd is running", dirs.lock().display()))
    })?;
    Ok(file)
}

fn listen(path: &Path) -> io::Result<OwnedFd> {
    let _ = std::fs::remove_file(path);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, channel::KIND, flags, None)?;
    let umask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(path)?);
    rustix::process::umask(umask);
    bound?;
    rustix::net::listen(&socket, 1024)?;
    Ok(socket)
}

fn connect(dirs: &Dirs) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, channel::KIND, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(dirs.forker())?)?;
    Ok(socket)
}

/// The forker of an earlier life, or a new one below a new reaper.
fn find_forker(dirs: &Dirs) -> io::Result<OwnedFd> {
    if let Ok(socket) = connect(dirs) {
        return Ok(socket);
    }
    let mut reaper = Command::new("/proc/self/exe");
    reaper.arg("reaper").arg(dirs.root()).env_clear().current_dir("/");
    reaper.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match connect(dirs) {
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
            connected => return connected,
        }
    }
}

impl Daemon {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(256);
        while !self.has_stopped() {
            let next = self.wake.into_iter().chain(self.next_deadline()).min().unwrap_or(u64::MAX);
            let wait = Duration::from_nanos(next.min(self.house_kept + SECOND).saturating_sub(now()));
            let wait = Timespec::try_from(wait).ok();
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), wait.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                result => drop(result?),
            }
            for event in &events {
                self.handle(event.data.u64());
            }
            if self.wake.is_some_and(|wake| wake <= now()) {
                self.wake = None;
                self.decide(Event::Tick);
            }
            self.keep_deadlines();
            if now() >= self.house_kept + SECOND {
                self.house_kept = now();
                self.keep_house();
            }
        }
        let _ = std::fs::remove_file(&self.socket);
        Ok(())
    }

    fn on_signal(&mut self) {
        while let Some(number) = self.signals.take() {
            if matches!(number, SIGTERM | SIGINT) && self.stopping.is_none() {
                self.stopping = Some(Instant::now() + PATIENCE);
                self.drain_all();
            }
        }
    }

    /// What is parked is gone; what runs goes on below the forker.
    fn has_stopped(&self) -> bool {
        self.stopping.is_some_and(|end| end <= Instant::now() || self.sandboxes.only_leased())
    }

    fn handle(&mut self, token: u64) {
        match token {
            LISTENER => self.accept(),
            FORKER => self.hear_forker(),
            TEARDOWN => self.on_torn_down(),
            SIGNALS => self.on_signal(),
            METRICS => self.accept_reader(),
            token if token & CLIENT != 0 => self.hear_client(token & !CLIENT),
            token if token & READER != 0 => self.answer_reader(token),
            token => self.on_orphan_end(token & !ORPHAN),
        }
    }

    /// Asks the policy, and does what it says.
    fn decide(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.metrics.heard(&event);
        self.policy.on(now(), event, &mut actions);
        for action in actions {
            self.metrics.did(&action);
            match action {
                Action::Grant { request, sandbox } => self.grant(request, sandbox),
                Action::Cold { request, why } => self.answer_cold(request, why.as_str()),
                Action::Refuse { request, why } => self.answer_refused(request, why.as_str()),
                Action::Fork { sandbox, pool, .. } => self.fork(sandbox, pool),
                Action::Destroy { sandbox, .. } => self.destroy(sandbox),
                Action::Learn { bundle } => self.learn(bundle),
                Action::Forget { pool } => self.forget(pool),
                Action::WakeAt { time } => self.wake = Some(time),
            }
        }
    }

    fn tell_forker(&mut self, message: &ToForker) -> bool {
        self.forker.as_ref().is_some_and(|forker| protocol::send(forker.as_fd(), message, &[]).is_ok())
    }

    fn hear_forker(&mut self) {
        let Some(forker) = &self.forker else { return };
        match protocol::receive::<FromForker>(forker.as_fd(), &mut self.packet) {
            Ok(Some((FromForker::Hello { children }, _))) => self.on_hello(children),
            Ok(Some((FromForker::Parked { sandbox, pid }, fds))) => self.on_parked(sandbox, pid, fds),
            Ok(Some((FromForker::Failed { sandbox, message }, _))) => self.on_failed(sandbox, message),
            Ok(Some((FromForker::Ended(child), _))) => self.on_ended(&child),
            Ok(None) | Err(_) => self.on_forker_gone(),
        }
    }

    /// The reaper starts it again, and reaps its children meanwhile.
    fn on_forker_gone(&mut self) {
        if let Some(forker) = self.forker.take() {
            let _ = epoll::delete(&self.epoll, &forker);
        }
        self.orphan_all();
        if let Ok(forker) = find_forker(&self.dirs) {
            let token = epoll::EventData::new_u64(FORKER);
            if epoll::add(&self.epoll, &forker, token, epoll::EventFlags::IN).is_ok() {
                self.forker = Some(forker);
            }
        }
        self.declare_all();
    }
}
