//! Clients and their requests. A client that goes takes its launch with it.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hearth::isolate::rights::LIMITS;
use hearth::observe::now;
use hearth::pool::protocol::{self, Launch, PoolState, Reply, Request, Target};
use rustix::event::epoll;
use rustix::net::SocketFlags;

use super::super::policy::{Caller, Event, PoolId, RequestId};
use super::{CLIENT, Daemon, pools};

/// Clients at a time: each may bring as many descriptors as a claim has.
const MANY: usize = 4096;
/// Bundles that are remembered by name until the policy has learned them.
const SEEN: usize = 1024;

#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    uid: u32,
    pub(super) lease: Option<u64>,
}

/// A launch that the policy has not decided on yet.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) client: u64,
    pub(super) launch: Launch,
    pub(super) fds: Vec<OwnedFd>,
    pub(super) received: u64,
    pub(super) pool: PoolId,
}

#[derive(Debug, Default)]
pub(super) struct Clients {
    pub(super) all: HashMap<u64, Client>,
    pub(super) waiting: BTreeMap<RequestId, Waiting>,
    next: u64,
    requests: u64,
}

impl Daemon {
    pub(super) fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::accept_with(&self.listener, flags) else { return };
        let Ok(peer) = rustix::net::sockopt::socket_peercred(&socket) else { return };
        let refuse = |reason: &str| {
            let reason = reason.to_owned();
            let _ = protocol::send(socket.as_fd(), &Reply::Refused { reason }, &[]);
        };
        if !peer.uid.is_root() {
            return refuse("only root may launch");
        }
        if self.clients.all.len() >= MANY {
            return refuse("too many clients");
        }
        let number = self.clients.next;
        let token = epoll::EventData::new_u64(CLIENT | number);
        if epoll::add(&self.epoll, &socket, token, epoll::EventFlags::IN).is_ok() {
            self.clients.next += 1;
            self.clients.all.insert(number, Client { socket, uid: peer.uid.as_raw(), lease: None });
        }
    }

    pub(super) fn hear_client(&mut self, number: u64) {
        let Some(client) = self.clients.all.get(&number) else { return };
        match protocol::receive::<Request>(client.socket.as_fd(), &mut self.packet) {
            Ok(Some((request, fds))) => self.answer_request(number, request, fds),
            Ok(None) => self.hang_up(number),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => {
                self.reply(number, &Reply::Refused { reason: error.to_string() });
                self.hang_up(number);
            }
        }
    }

    fn hang_up(&mut self, number: u64) {
        let Some(client) = self.clients.all.remove(&number) else { return };
        let _ = epoll::delete(&self.epoll, &client.socket);
        let waits = |waiting: &Waiting| waiting.client == number;
        let requests: Vec<_> =
            self.clients.waiting.iter().filter(|(_, one)| waits(one)).map(|(request, _)| *request).collect();
        for request in requests {
            self.clients.waiting.remove(&request);
            self.decide(Event::ClaimCancelled { request });
        }
        if let Some(sandbox) = client.lease {
            self.kill(sandbox);
        }
    }

    fn answer_request(&mut self, client: u64, request: Request, fds: Vec<OwnedFd>) {
        let done = |result: Result<(), String>| match result {
            Ok(()) => Reply::Done,
            Err(reason) => Reply::Refused { reason },
        };
        let reply = match request {
            Request::Launch(launch) => return self.launch(client, *launch, fds),
            Request::End { id } => Reply::End(self.status_of(&id)),
            Request::CreatePool { name, bundle, min, max } => done(self.create_pool(name, bundle, min, max)),
            Request::ResizePool { name, min, max } => done(self.resize_pool(&name, min, max)),
            Request::DrainPool { name } => done(self.drain_pool(&name)),
            Request::DeletePool { name } => done(self.delete_pool(&name)),
            Request::Pools => Reply::Pools(self.pool_states()),
        };
        self.reply(client, &reply);
    }

    fn launch(&mut self, client: u64, launch: Launch, fds: Vec<OwnedFd>) {
        let received = now();
        if let Err(reason) = check(&launch, &fds) {
            self.reply(client, &Reply::Refused { reason });
            return;
        }
        let pool = match &launch.target {
            Target::Pool(name) => self.pools.named(name),
            Target::Bundle(bundle) => self.pools.of_bundle(bundle),
        };
        let Some(pool) = pool else {
            self.observe(&launch);
            self.answer(client, &launch, "no pool");
            return;
        };
        if let Err(why) = self.own.fits(&launch) {
            self.answer(client, &launch, why);
            return;
        }
        self.check_generation(pool);
        let request = RequestId(self.clients.requests);
        self.clients.requests += 1;
        let caller = Caller(self.clients.all.get(&client).map_or(0, |client| client.uid));
        let only = launch.only;
        self.clients.waiting.insert(request, Waiting { client, launch, fds, received, pool });
        self.decide(Event::Claim { request, pool, caller, only });
    }

    /// A bundle without a pool may be worth one.
    fn observe(&mut self, launch: &Launch) {
        let Target::Bundle(bundle) = &launch.target else { return };
        let key = pools::key(bundle);
        if self.pools.seen.len() >= SEEN {
            self.pools.seen.clear();
        }
        self.pools.seen.insert(key.0, bundle.clone());
        self.decide(Event::Observed { bundle: key });
    }

    pub(super) fn answer_cold(&mut self, request: RequestId, why: &str) {
        let Some(waiting) = self.clients.waiting.remove(&request) else { return };
        if let Some(pool) = self.pools.all.get_mut(&waiting.pool) {
            pool.misses += 1;
        }
        self.answer(waiting.client, &waiting.launch, why);
    }

    pub(super) fn answer_refused(&mut self, request: RequestId, why: &str) {
        let Some(waiting) = self.clients.waiting.remove(&request) else { return };
        self.reply(waiting.client, &Reply::Refused { reason: why.to_owned() });
    }

    /// No sandbox: the client launches cold, unless it wanted only the pool.
    pub(super) fn answer(&mut self, client: u64, launch: &Launch, why: &str) {
        let reason = why.to_owned();
        if launch.only {
            self.reply(client, &Reply::Refused { reason });
            return;
        }
        let bundle = match &launch.target {
            Target::Bundle(_) => None,
            Target::Pool(name) => {
                let pool = self.pools.named(name).and_then(|pool| self.pools.all.get(&pool));
                pool.map(|pool| pool.bundle.clone())
            }
        };
        self.reply(client, &Reply::Cold { reason, bundle });
    }

    pub(super) fn reply(&mut self, client: u64, reply: &Reply) {
        self.reply_with(client, reply, &[]);
    }

    /// Whether it could be told.
    pub(super) fn reply_with(&mut self, client: u64, reply: &Reply, fds: &[BorrowedFd<'_>]) -> bool {
        let Some(one) = self.clients.all.get(&client) else { return false };
        let told = protocol::send(one.socket.as_fd(), reply, fds).is_ok();
        if !told {
            self.hang_up(client);
        }
        told
    }

    fn pool_states(&self) -> Vec<PoolState> {
        let mut states: Vec<_> = self
            .pools
            .all
            .iter()
            .map(|(id, pool)| {
                let [parked, making, leased] = self.sandboxes.of_pool(*id);
                PoolState {
                    name: pool.name.clone(),
                    bundle: pool.bundle.clone(),
                    min: pool.min,
                    max: pool.max,
                    parked,
                    making,
                    leased,
                    hits: pool.hits,
                    misses: pool.misses,
                    trouble: pool.trouble.clone(),
                    learned: pool.learned,
                }
            })
            .collect();
        states.sort_by(|a, b| a.name.cmp(&b.name));
        states
    }
}

/// What sandboxes get from this process, by the forker: more can't be given to them.
#[derive(Debug)]
pub(super) struct Own {
    cgroup: String,
    hard: Vec<Option<u64>>,
    oom_score_adj: i32,
}

impl Own {
    pub(super) fn look() -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        Self {
            cgroup: read("cgroup"),
            hard: LIMITS.iter().map(|(.., kind)| rustix::process::getrlimit(*kind).maximum).collect(),
            oom_score_adj: read("oom_score_adj").trim().parse().unwrap_or(0),
        }
    }

    fn fits(&self, launch: &Launch) -> Result<(), &'static str> {
        if launch.home.as_ref().is_some_and(|home| *home != self.cgroup) {
            return Err("the caller is in another cgroup than the pool");
        }
        let Some(inherited) = &launch.claim.inherited else { return Ok(()) };
        let above = |(number, _, hard): &(u32, u64, u64)| {
            let own = LIMITS.iter().position(|(of, ..)| of == number).and_then(|at| self.hard[at]);
            own.is_some_and(|own| *hard > own)
        };
        if inherited.rlimits.iter().any(above) {
            return Err("the caller's rlimits are above the pool's");
        }
        if inherited.oom_score_adj < self.oom_score_adj {
            return Err("the caller's oom_score_adj is below the pool's");
        }
        Ok(())
    }
}

/// What comes from outside, before anything is done with it.
fn check(launch: &Launch, fds: &[OwnedFd]) -> Result<(), String> {
    launch.claim.validate().map_err(|error| error.chain())?;
    if let Some(id) = &launch.id {
        hearth::bundle::validate::id(id).map_err(|error| error.chain())?;
    }
    let expected = launch.claim.descriptors();
    if fds.len() == expected {
        return Ok(());
    }
    Err(format!("descriptors: {}: expected {expected}", fds.len()))
}
