//! The process that makes sandboxes: one thread, for only such a process may clone; the parent of every parked init,
//! and so the one that reaps. It sees bundles, never claims. It outlives the daemon, which connects again.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use hearth::container::park::{Parked, Template};
use hearth::isolate::cgroup::Placement;
use hearth::pool::protocol::{self, Status};
use hearth::process::channel::{self, ToRuntime};
use hearth::store::Root;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::net::SocketFlags;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::dirs::Dirs;
use super::wire::{self, FromForker, ToForker};

/// Without a daemon and without children for so long, it ends.
const LONELY: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Ends that are kept for a daemon that is not there.
const BACKLOG: usize = 20_000;

const LISTENER: u64 = 0;
const DAEMON: u64 = 1;
/// Of a child's pidfd, and of its socket while it is being made: the pid above a bit.
const PIDFD: u64 = 0;
const SOCKET: u64 = 1;

struct Child {
    sandbox: u64,
    name: String,
    pidfd: OwnedFd,
    /// Where the launching client hears of the end: our side, and the other one until the daemon has it.
    status: OwnedFd,
    theirs: Option<OwnedFd>,
    /// Until init is ready.
    socket: Option<OwnedFd>,
    cgroups: Placement,
}

struct Forker {
    root: Root,
    listener: OwnedFd,
    epoll: OwnedFd,
    daemon: Option<OwnedFd>,
    /// Or why there is none: told at each attempt.
    templates: HashMap<u32, Result<Template, String>>,
    children: HashMap<i32, Child>,
    /// Told when a daemon comes.
    backlog: Vec<wire::Child>,
    packet: Vec<u8>,
}

/// The listening socket is standard input.
pub fn main(root: &Path) -> io::Result<()> {
    let listener = rustix::stdio::stdin().try_clone_to_owned()?;
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC)?;
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    drop(null);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let root = Root::new(&Dirs::new(root).parked()).map_err(other)?;
    let mut forker = Forker {
        root,
        listener,
        epoll,
        daemon: None,
        templates: HashMap::new(),
        children: HashMap::new(),
        backlog: Vec::new(),
        packet: Vec::new(),
    };
    let mut events = Vec::with_capacity(64);
    loop {
        let idle = forker.daemon.is_none() && forker.children.is_empty();
        events.clear();
        match epoll::wait(&forker.epoll, spare_capacity(&mut events), idle.then_some(&LONELY)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => return Ok(()),
            result => drop(result?),
        }
        for event in &events {
            forker.handle(event.data.u64());
        }
    }
}

fn other(error: hearth::Error) -> io::Error {
    io::Error::other(error.chain())
}

impl Forker {
    fn handle(&mut self, token: u64) {
        match token {
            LISTENER => self.accept(),
            DAEMON => self.hear(),
            token => {
                let pid = i32::try_from(token >> 1).unwrap_or(0);
                if token & 1 == SOCKET { self.on_word(pid) } else { self.on_end(pid) }
            }
        }
    }

    /// One daemon at a time; a new one replaces the old one, which is dead or as good.
    fn accept(&mut self) {
        let Ok(socket) = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) else { return };
        self.part();
        let flags = epoll::EventFlags::IN;
        if epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(DAEMON), flags).is_err() {
            return;
        }
        self.daemon = Some(socket);
        let mut children: Vec<_> =
            self.children.iter().map(|(pid, child)| child.told(*pid, None, 0)).collect();
        children.append(&mut self.backlog);
        // In packets of what fits.
        for part in children.chunks(500) {
            self.tell(&FromForker::Hello { children: part.to_vec() }, &[]);
        }
        if children.is_empty() {
            self.tell(&FromForker::Hello { children }, &[]);
        }
    }

    fn part(&mut self) {
        if let Some(socket) = self.daemon.take() {
            let _ = epoll::delete(&self.epoll, &socket);
        }
        self.templates.clear();
        // What was not handed over yet has nobody to wait for: its init sees the end of the stream.
        self.children.values_mut().for_each(|child| drop(child.socket.take()));
    }

    fn tell(&mut self, message: &FromForker, fds: &[BorrowedFd<'_>]) -> bool {
        let told =
            self.daemon.as_ref().is_some_and(|daemon| protocol::send(daemon.as_fd(), message, fds).is_ok());
        if !told
            && let FromForker::Ended(child) = message
            && self.backlog.len() < BACKLOG
        {
            self.backlog.push(child.clone());
        }
        told
    }

    fn hear(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        match protocol::receive::<ToForker>(daemon.as_fd(), &mut self.packet) {
            Ok(Some((ToForker::Prepare { pool, bundle }, _))) => {
                let template = Template::load(Path::new(&bundle)).map_err(|error| error.chain());
                self.templates.insert(pool, template);
            }
            Ok(Some((ToForker::Forget { pool }, _))) => drop(self.templates.remove(&pool)),
            Ok(Some((ToForker::Park { pool, sandbox, name }, _))) => {
                if let Err(message) = self.park(pool, sandbox, name) {
                    self.tell(&FromForker::Failed { sandbox, message }, &[]);
                }
            }
            Ok(None) | Err(_) => self.part(),
        }
    }

    fn park(&mut self, pool: u32, sandbox: u64, name: String) -> Result<(), String> {
        let template = self.templates.get_mut(&pool).ok_or("a pool that was not prepared")?;
        let template = template.as_mut().map_err(|message| message.clone())?;
        let Parked { container, spawned } =
            template.park(&self.root, &name).map_err(|error| error.chain())?;
        let pid = spawned.child.pid.as_raw_nonzero().get();
        let watched = self.watch(pid, &spawned.child.pidfd, &spawned.socket);
        let (status, theirs) = channel::pair().map_err(|error| error.to_string())?;
        let cgroups = container.record.map_or_else(Placement::none, |record| record.cgroups);
        let child = Child {
            sandbox,
            name,
            pidfd: spawned.child.pidfd,
            status,
            theirs: Some(theirs),
            // Without it, init gives up.
            socket: watched.is_ok().then_some(spawned.socket),
            cgroups,
        };
        self.children.insert(pid, child);
        watched.map_err(|error| error.to_string())
    }

    fn watch(&self, pid: i32, pidfd: &OwnedFd, socket: &OwnedFd) -> io::Result<()> {
        let token = |bit| epoll::EventData::new_u64(u64::from(pid.unsigned_abs()) << 1 | bit);
        epoll::add(&self.epoll, pidfd, token(PIDFD), epoll::EventFlags::IN)?;
        epoll::add(&self.epoll, socket, token(SOCKET), epoll::EventFlags::IN)?;
        Ok(())
    }

    /// Init is ready, or says why not, or is gone, which its pidfd tells.
    fn on_word(&mut self, pid: i32) {
        let Some(child) = self.children.get_mut(&pid) else { return };
        let Some(socket) = child.socket.take() else { return };
        let _ = epoll::delete(&self.epoll, &socket);
        let sandbox = child.sandbox;
        match channel::receive::<ToRuntime>(socket.as_fd()) {
            Ok(Some((ToRuntime::Ready { .. }, _))) => {
                let Some(theirs) = child.theirs.take() else { return };
                let Ok(pidfd) = child.pidfd.try_clone() else { return };
                let fds = [socket.as_fd(), pidfd.as_fd(), theirs.as_fd()];
                self.tell(&FromForker::Parked { sandbox, pid }, &fds);
            }
            Ok(Some((ToRuntime::Failed { step, message }, _))) => {
                self.tell(&FromForker::Failed { sandbox, message: format!("{step}: {message}") }, &[]);
            }
            _ => {
                self.tell(&FromForker::Failed { sandbox, message: "init ended without a word".into() }, &[]);
            }
        }
    }

    /// The status is told before the process is reaped: if we die in between, the reaper finds it again.
    fn on_end(&mut self, pid: i32) {
        let Some(raw) = Pid::from_raw(pid) else { return };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let Ok(Some(status)) = waitid(WaitId::Pid(raw), options | WaitIdOptions::NOWAIT) else { return };
        let exited = status.exit_status().map(|code| (code & 0xff) << 8);
        let wait = exited.or_else(|| status.terminating_signal()).unwrap_or(0);
        if let Some(child) = self.children.remove(&pid) {
            let killed = status.terminating_signal().is_some();
            let ooms = if killed { child.cgroups.oom_count().unwrap_or(0) } else { 0 };
            // The client may be gone, or never have been.
            let _ = protocol::send(child.status.as_fd(), &Status { wait, ooms }, &[]);
            let _ = epoll::delete(&self.epoll, &child.pidfd);
            self.tell(&FromForker::Ended(child.told(pid, Some(wait), ooms)), &[]);
        }
        while matches!(waitid(WaitId::Pid(raw), options), Err(rustix::io::Errno::INTR)) {}
    }
}

impl Child {
    fn told(&self, pid: i32, wait: Option<i32>, ooms: u64) -> wire::Child {
        wire::Child { sandbox: self.sandbox, name: self.name.clone(), pid, wait, ooms }
    }
}

/// How long the daemon gives a forker that was just started to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
