//! The warm pool's policy: which sandboxes are made, granted and destroyed, and when.
//!
//! PURE: events go in, actions come out, nothing else. The time is an argument; the same events at the same times
//! give the same actions. What never happens, whatever the order of events (the tests in `tests` try):
//!
//! - A sandbox is granted twice, or dead, or of another pool, or of an old generation.
//! - A claim is answered twice, or not by its deadline (given the tick that was asked for).
//! - A pool holds more than its maximum, or all together more than the memory allowed.
//! - A drained pool forks. A sandbox is forgotten before it is destroyed.
//! - A pool that lacks something, and that nothing opposes, waits for ever behind others.
//!
//! Where to read: [`words`] identifiers, events, actions; [`config`] the settings; `stock` one pool, and who waits
//! for it; `slot` one sandbox's life; `claims` who gets one; `refill` who forks next; `plan` how many each
//! pool should hold, and memory pressure; `history` what launches were like; `learn` undeclared bundles.
//!
//! Deliberately absent: a second chance for a used sandbox, and any preference among callers.

mod claims;
pub mod config;
mod histogram;
mod history;
mod learn;
mod plan;
mod pools;
mod refill;
mod slot;
mod stock;
#[cfg(test)]
mod tests;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};

pub use config::{Config, Nanos};
pub use words::{Action, BundleKey, Caller, End, Event, Generation, Pool, PoolId, RequestId, SandboxId, Why};

use learn::Key;
use plan::Memory;
use slot::Slot;
use stock::{Stock, Turn, count};

#[derive(Debug)]
pub struct Policy {
    config: Config,
    now: Nanos,
    pools: BTreeMap<PoolId, Stock>,
    /// Pools that lack something.
    needy: BTreeSet<PoolId>,
    slots: BTreeMap<SandboxId, Slot>,
    next_sandbox: u64,
    /// Where the waiting claims wait, and until when.
    requests: BTreeMap<RequestId, (PoolId, Turn)>,
    deadlines: BTreeSet<(Nanos, RequestId)>,
    callers: BTreeMap<Caller, Holds>,
    memory: Memory,
    /// Forks in flight, and forks ever.
    forks: u32,
    turn: u64,
    /// Granted sandboxes that have not started their program yet, and when the last one was granted.
    starting: u32,
    last_grant: Nanos,
    standing_back_since: Option<Nanos>,
    keys: BTreeMap<BundleKey, Key>,
    planned_at: Nanos,
    plan_again: Nanos,
    refill_again: Nanos,
    /// What the last `WakeAt` said.
    wake: Nanos,
    actions: Vec<Action>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Holds {
    leases: u32,
    waiting: u32,
}

/// What a pool looks like at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    pub spec: Pool,
    pub draining: bool,
    pub target: u32,
    pub parked: u32,
    pub forking: u32,
    pub waiting: u32,
}

impl Policy {
    pub fn new(config: Config) -> Self {
        Self {
            now: 0,
            pools: BTreeMap::new(),
            needy: BTreeSet::new(),
            slots: BTreeMap::new(),
            next_sandbox: 1,
            requests: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            callers: BTreeMap::new(),
            memory: Memory { live: 0, dying: 0, allowed: config.budget, cut_again: 0 },
            forks: 0,
            turn: 0,
            starting: 0,
            last_grant: 0,
            standing_back_since: None,
            keys: BTreeMap::new(),
            planned_at: 0,
            plan_again: 0,
            refill_again: Nanos::MAX,
            wake: 0,
            actions: Vec::new(),
            config,
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn pools(&self) -> impl Iterator<Item = (PoolId, View)> {
        self.pools.iter().map(|(pool, stock)| (*pool, view(stock)))
    }

    pub fn pool(&self, pool: PoolId) -> Option<View> {
        self.pools.get(&pool).map(view)
    }

    /// Bytes of all sandboxes that are not granted, and what they may be at the moment.
    pub fn memory(&self) -> (u64, u64) {
        (self.memory.live + self.memory.dying, self.memory.allowed)
    }

    /// Takes an event, and appends what is to be done to `actions`. A time before the last one counts as the last.
    pub fn on(&mut self, now: Nanos, event: Event, actions: &mut Vec<Action>) {
        self.now = self.now.max(now);
        std::mem::swap(&mut self.actions, actions);
        self.expire();
        self.take(event);
        if self.now >= self.plan_again && !self.pools.is_empty() {
            self.forget_unused();
            self.plan();
        }
        self.refill();
        self.set_alarm();
        std::mem::swap(&mut self.actions, actions);
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::PoolDeclared { pool, spec } => self.declare(pool, spec),
            Event::PoolResized { pool, min, max } => self.resize(pool, min, max),
            Event::PoolDrained { pool } => self.drain(pool),
            Event::PoolDeleted { pool } => self.delete(pool),
            Event::GenerationChanged { pool, generation } => self.change_generation(pool, generation),
            Event::Claim { request, pool, caller, only } => self.claim(request, pool, caller, only),
            Event::ClaimCancelled { request } => self.cancel(request),
            Event::Launched { sandbox } => self.launched(sandbox),
            Event::Ready { sandbox, cost } => self.ready(sandbox, cost),
            Event::ForkFailed { sandbox } => self.fork_failed(sandbox),
            Event::Died { sandbox } => self.died(sandbox),
            Event::Released { sandbox } => self.released(sandbox),
            Event::Destroyed { sandbox } => self.destroyed(sandbox),
            Event::FoundParked { sandbox, pool, generation, cost } => {
                self.found_parked((sandbox, cost), pool, generation);
            }
            Event::FoundRunning { sandbox, caller } => self.found_running(sandbox, caller),
            Event::Pressure { available, some, full } => self.pressure(available, some, full),
            Event::Observed { bundle } => self.observed(bundle),
            Event::Tick => {}
        }
    }

    /// Asks for a tick, if none is asked for that is soon enough.
    fn set_alarm(&mut self) {
        let plan = if self.pools.is_empty() { Nanos::MAX } else { self.plan_again };
        let time = plan.min(self.refill_again).min(self.next_deadline().unwrap_or(Nanos::MAX));
        if time < Nanos::MAX && (time < self.wake || self.wake <= self.now) {
            self.wake = time;
            self.actions.push(Action::WakeAt { time });
        }
    }
}

fn view(stock: &Stock) -> View {
    View {
        spec: stock.spec,
        draining: stock.draining,
        target: stock.target,
        parked: count(stock.parked.len()),
        forking: count(stock.forking.len()),
        waiting: count(stock.queue.len()),
    }
}
