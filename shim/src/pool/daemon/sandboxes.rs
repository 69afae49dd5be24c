//! Sandboxes from their making to their end: what the policy decides is carried out here, and what becomes of it is
//! told to the policy.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hearth::container::Container;
use hearth::observe::{log, now};
use hearth::pool::protocol::{Granted, Launch, Path, Reply, Status};
use hearth::process::channel::{self, ToInit};
use hearth::store::Root;
use hearth::store::record::End;
use hearth::sys::kill::pidfd_send;
use rustix::event::epoll;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::super::dirs::Dirs;
use super::super::metrics::{self, Phase};
use super::super::policy::{Caller, Event, PoolId, RequestId, SandboxId};
use super::super::wire::{self, ToForker};
use super::teardown::Job;
use super::{Daemon, ORPHAN};

/// Ends that are remembered for clients that ask.
const REMEMBERED: usize = 4096;
/// Sandboxes of an earlier life are numbered from here: the policy numbers its own from 0.
const FOUND: u64 = 1 << 40;

const SIGKILL: i32 = 9;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Making,
    Parked,
    Leased,
    /// Its making failed: what is left of it goes, then the policy hears.
    Failed,
}

#[derive(Debug, Default)]
struct Sandbox {
    pool: PoolId,
    /// Of its directory among the parked ones.
    name: String,
    /// Of its container, once it is leased.
    id: Option<String>,
    stage: Stage,
    pid: i32,
    pidfd: Option<OwnedFd>,
    claim: Option<OwnedFd>,
    status: Option<OwnedFd>,
    /// Its mount namespace. The last to let go of one waits for a grace period of the kernel's: that is to be the
    /// teardown, not the program's end, for which a client waits.
    mounts: Option<OwnedFd>,
    ended: bool,
    killed: bool,
    /// Nobody waits for it: its record is kept.
    detached: bool,
    timed_out: bool,
    end: Option<End>,
    /// To be taken away as soon as it has ended.
    doomed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Sandboxes {
    all: HashMap<u64, Sandbox>,
    by_name: HashMap<String, u64>,
    found: u64,
    /// Of this life of the daemon: names are never used twice.
    life: Option<String>,
    ended: HashMap<String, Ended>,
    /// When which sandbox is to be killed.
    deadlines: BTreeSet<(u64, u64)>,
}

#[derive(Debug, Clone, Copy)]
enum Ended {
    Known(Status),
    /// The reaper will know it, by its pid.
    Orphan(i32),
}

impl Sandboxes {
    pub(super) fn of_pool(&self, pool: PoolId) -> [u32; 3] {
        let count = |stage| {
            let count =
                self.all.values().filter(|one| one.pool == pool && one.stage == stage && !one.doomed).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        [count(Stage::Parked), count(Stage::Making), count(Stage::Leased)]
    }

    pub(super) fn leased(&self) -> usize {
        self.all.values().filter(|one| one.stage == Stage::Leased && !one.ended).count()
    }

    pub(super) fn only_leased(&self) -> bool {
        self.all.values().all(|one| one.stage == Stage::Leased && !(one.ended || one.killed))
    }

    fn insert(&mut self, number: u64, sandbox: Sandbox) {
        self.by_name.insert(sandbox.name.clone(), number);
        self.all.insert(number, sandbox);
    }
}

impl Daemon {
    pub(super) fn fork(&mut self, sandbox: SandboxId, pool: PoolId) {
        let life = self.sandboxes.life.get_or_insert_with(|| format!("{:x}", now()));
        let of = self.pools.all.get(&pool).map_or("sandbox", |pool| &pool.name);
        let name = format!("{of}-{life}-{}", sandbox.0);
        let one = Sandbox { pool, name: name.clone(), ended: true, ..Sandbox::default() };
        self.sandboxes.insert(sandbox.0, one);
        if !self.tell_forker(&ToForker::Park { pool: pool.0, sandbox: sandbox.0, name }) {
            self.fail(sandbox.0);
        }
    }

    pub(super) fn on_parked(&mut self, number: u64, pid: i32, fds: Vec<OwnedFd>) {
        let Ok([claim, pidfd, status]) = <[OwnedFd; 3]>::try_from(fds) else { return };
        let Some(one) = self.sandboxes.all.get_mut(&number) else { return };
        one.stage = Stage::Parked;
        one.pid = pid;
        (one.claim, one.pidfd, one.status) = (Some(claim), Some(pidfd), Some(status));
        one.mounts = std::fs::File::open(format!("/proc/{pid}/ns/mnt")).ok().map(OwnedFd::from);
        one.ended = false;
        if one.doomed {
            self.kill(number);
            return;
        }
        let (pool, name) = (one.pool, one.name.clone());
        let mut cost = super::pools::COST;
        if let Some(pool) = self.pools.all.get_mut(&pool) {
            pool.trouble = None;
            // The first one is weighed, for all of them.
            cost = *pool.cost.get_or_insert_with(|| weigh(&self.dirs.parked(), &name).unwrap_or(cost));
        }
        self.decide(Event::Ready { sandbox: SandboxId(number), cost });
    }

    pub(super) fn on_failed(&mut self, number: u64, message: String) {
        let Some(one) = self.sandboxes.all.get(&number) else { return };
        let pool = one.pool;
        if let Some(pool) = self.pools.all.get_mut(&pool) {
            log::warn(&format!("pool {}: {message}", pool.name));
            pool.trouble = Some(message);
        }
        self.fail(number);
    }

    fn fail(&mut self, number: u64) {
        let Some(one) = self.sandboxes.all.get_mut(&number) else { return };
        one.stage = Stage::Failed;
        self.take_away(number);
    }

    /// What the policy wants gone, whatever its state.
    pub(super) fn destroy(&mut self, sandbox: SandboxId) {
        let Some(one) = self.sandboxes.all.get_mut(&sandbox.0) else {
            self.decide(Event::Destroyed { sandbox });
            return;
        };
        one.doomed = true;
        match (one.stage, one.ended) {
            // It will be ready, or fail.
            (Stage::Making, _) => {}
            (_, true) => self.take_away(sandbox.0),
            (_, false) => self.kill(sandbox.0),
        }
    }

    pub(super) fn kill(&mut self, number: u64) {
        let Some(one) = self.sandboxes.all.get_mut(&number) else { return };
        one.killed = true;
        // Without its claim socket a parked init ends, too.
        one.claim = None;
        if let Some(pidfd) = &one.pidfd {
            // It may have ended just now.
            let _ = pidfd_send(pidfd, SIGKILL);
        }
    }

    fn take_away(&mut self, number: u64) {
        let Some(one) = self.sandboxes.all.get_mut(&number) else { return };
        let leased = one.id.is_some();
        let id = one.id.clone().unwrap_or_else(|| one.name.clone());
        let keep = one.end.clone().filter(|_| one.detached);
        self.teardown.take_away(Job {
            sandbox: number,
            id,
            leased,
            keep,
            pid: one.pid,
            mounts: one.mounts.take(),
        });
    }

    pub(super) fn on_torn_down(&mut self) {
        for number in self.teardown.done() {
            let Some(one) = self.sandboxes.all.remove(&number) else { continue };
            self.sandboxes.by_name.remove(&one.name);
            if let Some(id) = &one.id {
                let _ = std::fs::remove_file(self.dirs.leased().join(id));
            }
            let sandbox = SandboxId(number);
            self.decide(match one.stage {
                Stage::Failed => Event::ForkFailed { sandbox },
                _ => Event::Destroyed { sandbox },
            });
        }
    }

    /// Its process is gone.
    pub(super) fn on_ended(&mut self, child: &wire::Child) {
        match self.sandboxes.by_name.get(&child.name).copied() {
            Some(number) => self.end(number, child.wait.map(|wait| Status { wait, ooms: child.ooms })),
            // Made for an earlier life of ours, and nobody's.
            None => self.sweep_away(child.name.clone()),
        }
    }

    fn sweep_away(&self, id: String) {
        // The number is nobody's.
        self.teardown.take_away(Job {
            sandbox: u64::MAX,
            id,
            leased: false,
            keep: None,
            pid: 0,
            mounts: None,
        });
    }

    fn end(&mut self, number: u64, status: Option<Status>) {
        let Some(one) = self.sandboxes.all.get_mut(&number) else { return };
        one.ended = true;
        (one.pidfd, one.claim) = (None, None);
        one.end = Some(match status {
            _ if one.timed_out => End::TimedOut,
            Some(status) => End::new(status.wait, status.ooms),
            None => End::Unknown,
        });
        let (sandbox, doomed) = (SandboxId(number), one.doomed);
        if let Some(id) = &one.id {
            if self.sandboxes.ended.len() >= REMEMBERED {
                self.sandboxes.ended.clear();
            }
            let ended = status.map_or(Ended::Orphan(one.pid), Ended::Known);
            self.sandboxes.ended.insert(id.clone(), ended);
        }
        match one.stage {
            Stage::Making | Stage::Failed => {}
            _ if doomed => self.take_away(number),
            Stage::Parked => self.decide(Event::Died { sandbox }),
            Stage::Leased => self.decide(Event::Released { sandbox }),
        }
    }

    pub(super) fn grant(&mut self, request: RequestId, sandbox: SandboxId) {
        let Some(mut waiting) = self.clients.waiting.remove(&request) else {
            self.kill(sandbox.0);
            self.decide(Event::Released { sandbox });
            return;
        };
        let decided = now();
        match self.hand_over(&mut waiting.launch, &waiting.fds, waiting.received, sandbox.0) {
            Ok((granted, pidfd, status)) => {
                for (phase, from, to) in [
                    (Phase::Decide, waiting.received, decided),
                    (Phase::Start, decided, granted.claimed),
                    (Phase::Whole, waiting.received, granted.claimed),
                ] {
                    self.metrics.took(metrics::Path::Bundle, phase, to.saturating_sub(from));
                }
                let fds = [pidfd.as_fd(), status.as_fd()];
                if !self.reply_with(waiting.client, &Reply::Granted(granted), &fds) {
                    self.kill(sandbox.0);
                } else if let Some(client) = self.clients.all.get_mut(&waiting.client) {
                    client.lease = Some(sandbox.0).filter(|_| !waiting.launch.detach);
                }
                if let Some(pool) = self.pools.all.get_mut(&waiting.pool) {
                    pool.hits += 1;
                }
                // Not told as launched: the forker, busy with a refill, would tell of a short program's end late.
            }
            Err(Trouble::Taken(id)) => {
                let reason = format!("container with given ID already exists: {id}");
                self.reply_with(waiting.client, &Reply::Refused { reason }, &[]);
                self.kill(sandbox.0);
            }
            Err(Trouble::Sandbox(reason)) => {
                self.answer(waiting.client, &waiting.launch, &reason);
                self.kill(sandbox.0);
            }
        }
    }

    /// The name first, so that whoever dies leaves a container that can be found; then the limits; then the claim.
    fn hand_over(
        &mut self,
        launch: &mut Launch,
        fds: &[OwnedFd],
        received: u64,
        number: u64,
    ) -> Result<(Granted, OwnedFd, OwnedFd), Trouble> {
        let gone = |what: &str| Trouble::Sandbox(format!("the parked sandbox {what}"));
        let one = self.sandboxes.all.get_mut(&number).ok_or_else(|| gone("is gone"))?;
        let (Some(claim), Some(pidfd), Some(status)) = (one.claim.take(), &one.pidfd, one.status.take())
        else {
            return Err(gone("has ended"));
        };
        let pidfd = pidfd.try_clone().map_err(|error| gone(&error.to_string()))?;
        let id = launch.id.clone().unwrap_or_else(|| one.name.clone());
        let (from, to) = (self.dirs.parked().join(&one.name), self.dirs.root().join(&id));
        match renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Trouble::Taken(id)),
            Err(errno) => return Err(gone(&errno.to_string())),
        }
        one.id = Some(id.clone());
        one.stage = Stage::Leased;
        one.detached = launch.detach;
        let deadline = launch.timeout.map(|timeout| now().saturating_add(timeout.saturating_mul(1_000_000)));
        self.sandboxes.deadlines.extend(deadline.map(|deadline| (deadline, number)));
        let mark = Mark { detached: launch.detach, deadline };
        mark.write(&self.dirs, &id).map_err(|error| gone(&error.to_string()))?;
        let (pid, own_name) = (one.pid, one.name == id);
        adjust(&self.root, &id, own_name, launch).map_err(|error| Trouble::Sandbox(error.chain()))?;
        let message = ToInit::Claim { pid, claim: Box::new(std::mem::take(&mut launch.claim)) };
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        channel::send(claim.as_fd(), &message, &fds).map_err(|_| gone("has ended"))?;
        let granted = Granted { id, path: Path::Bundle, pid, received, claimed: now() };
        Ok((granted, pidfd, status))
    }

    /// All that an earlier life left parked, and what it leased and nobody has taken away.
    pub(super) fn sweep(&mut self) {
        let parked = Root::new(&self.dirs.parked());
        let left = parked.and_then(|root| {
            root.remove_drafts()?;
            root.list()
        });
        for id in left.unwrap_or_default() {
            self.sweep_away(id);
        }
        let marks = std::fs::read_dir(self.dirs.leased()).into_iter().flatten();
        for id in marks.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            let running = Container::open(&self.root, &id).ok().and_then(|container| {
                let pid = container.record.as_ref()?.process?.pid;
                Some((pid, container.process()?))
            });
            let number = FOUND + self.sandboxes.found;
            self.sandboxes.found += 1;
            let mark = Mark::read(&self.dirs, &id);
            let one = Sandbox {
                pool: PoolId(u32::MAX), // of no pool any more
                name: format!("found-{number:x}"),
                id: Some(id),
                stage: Stage::Leased,
                pid: running.as_ref().map_or(0, |(pid, _)| *pid),
                ended: running.is_none(),
                pidfd: running.map(|(_, pidfd)| pidfd),
                detached: mark.detached,
                ..Sandbox::default()
            };
            let ended = one.ended;
            self.sandboxes.insert(number, one);
            self.sandboxes.deadlines.extend(mark.deadline.map(|deadline| (deadline, number)));
            let sandbox = SandboxId(number);
            self.decide(Event::FoundRunning { sandbox, caller: Caller(0) });
            if ended {
                self.decide(Event::Released { sandbox });
            } else {
                self.watch(number);
            }
        }
    }

    /// The forker's children of an earlier life are told by their names of that time: what runs was found already.
    pub(super) fn on_hello(&mut self, children: Vec<wire::Child>) {
        for child in children {
            let of_pid = |one: &Sandbox| one.pid == child.pid && one.stage == Stage::Leased;
            let found = self.sandboxes.all.iter().find(|(_, one)| of_pid(one)).map(|(number, _)| *number);
            if let Some(number) = found {
                self.sandboxes.by_name.insert(child.name.clone(), number);
            }
            if child.wait.is_some() {
                self.on_ended(&child);
            }
        }
    }

    /// Nobody but its pidfd will tell of the end.
    fn watch(&mut self, number: u64) {
        let Some(pidfd) = self.sandboxes.all.get(&number).and_then(|one| one.pidfd.as_ref()) else { return };
        let token = epoll::EventData::new_u64(ORPHAN | number);
        let _ = epoll::add(&self.epoll, pidfd, token, epoll::EventFlags::IN);
    }

    pub(super) fn on_orphan_end(&mut self, number: u64) {
        let Some(one) = self.sandboxes.all.get(&number) else { return };
        if let Some(pidfd) = &one.pidfd {
            let _ = epoll::delete(&self.epoll, pidfd);
        }
        self.end(number, None);
    }

    /// What the reaper wrote down.
    fn exit_of(&self, pid: i32) -> Option<Status> {
        let path = self.dirs.exits().join(pid.to_string());
        let wait = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
        Some(Status { wait, ooms: 0 })
    }

    /// The forker is gone: what is parked has lost its parent and goes, what runs is watched from here.
    pub(super) fn orphan_all(&mut self) {
        let numbers: Vec<u64> = self.sandboxes.all.keys().copied().collect();
        for number in numbers {
            match self.sandboxes.all.get(&number).map(|one| (one.stage, one.ended)) {
                Some((Stage::Making, _)) => self.fail(number),
                Some((Stage::Parked, false)) => {
                    self.kill(number);
                    self.end(number, None);
                }
                Some((Stage::Leased, false)) => self.watch(number),
                _ => {}
            }
        }
    }

    /// How a launch ended, where its client was not told.
    pub(super) fn status_of(&self, id: &str) -> Option<Status> {
        match self.sandboxes.ended.get(id)? {
            Ended::Known(status) => Some(*status),
            Ended::Orphan(pid) => self.exit_of(*pid),
        }
    }
}

impl Daemon {
    /// Kills what is beyond its deadline.
    pub(super) fn keep_deadlines(&mut self) {
        while let Some((deadline, number)) = self.sandboxes.deadlines.first().copied()
            && deadline <= now()
        {
            self.sandboxes.deadlines.pop_first();
            if let Some(one) = self.sandboxes.all.get_mut(&number).filter(|one| !one.ended) {
                one.timed_out = true;
                self.kill(number);
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.sandboxes.deadlines.first().map(|(deadline, _)| *deadline)
    }
}

/// What a later life of the daemon must know of a launch under way.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Mark {
    detached: bool,
    /// Nanoseconds of CLOCK_MONOTONIC.
    deadline: Option<u64>,
}

impl Mark {
    fn write(&self, dirs: &Dirs, id: &str) -> std::io::Result<()> {
        std::fs::write(dirs.leased().join(id), serde_json::to_vec(self)?)
    }

    fn read(dirs: &Dirs, id: &str) -> Self {
        let text = std::fs::read(dirs.leased().join(id)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// Bytes that a sandbox's memory cgroup is charged with, what the kernel needs for it included.
fn weigh(parked: &std::path::Path, name: &str) -> Option<u64> {
    let container = Container::open(&Root::new(parked).ok()?, name).ok()?;
    let usage = container.record?.cgroups.stats().ok()?.memory.usage.usage;
    Some(usage).filter(|usage| *usage > 0)
}

enum Trouble {
    /// The name that was asked for.
    Taken(String),
    Sandbox(String),
}

/// What the launch wants otherwise than the bundle, outside of the sandbox: its record's name, its limits.
fn adjust(root: &Root, id: &str, own_name: bool, launch: &Launch) -> hearth::Result<()> {
    let limits = launch.limits;
    if own_name && limits.resources().is_none() {
        return Ok(());
    }
    let mut container = Container::open(root, id)?;
    let Some(record) = &mut container.record else { return Err(hearth::Error::InitGone) };
    id.clone_into(&mut record.id);
    limits.apply(&mut record.cgroups)?;
    container.dir.write(record)
}
