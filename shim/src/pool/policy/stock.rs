//! One pool: what it holds, what it should hold, who waits for it.

use std::collections::{BTreeMap, BTreeSet};

use super::config::{Config, MILLISECOND, Nanos, SECOND};
use super::history::History;
use super::words::{Caller, Pool, RequestId, SandboxId};

/// A stock sinks only after its lower level was enough for so long: nothing flaps.
const HOLD: Nanos = 10 * SECOND;
/// After a failed fork the next one waits, twice as long each time up to 2^8 times.
const RETRY: Nanos = 100 * MILLISECOND;

#[derive(Debug)]
pub(super) struct Stock {
    pub(super) spec: Pool,
    /// When it was declared.
    pub(super) since: Nanos,
    pub(super) draining: bool,
    /// The youngest is granted first, the oldest destroyed first.
    pub(super) parked: BTreeSet<SandboxId>,
    /// Being made, and still wanted.
    pub(super) forking: BTreeSet<SandboxId>,
    pub(super) queue: Queue,
    pub(super) history: History,
    /// So many should be parked, as the last plan has it.
    pub(super) target: u32,
    /// When it was last this pool's turn to fork, counted in forks.
    pub(super) turn: u64,
    /// The level it does not sink below until then.
    held: (u32, Nanos),
    failures: u32,
    pub(super) retry_at: Nanos,
}

impl Stock {
    pub(super) fn new(spec: Pool, history: History, since: Nanos) -> Self {
        Self {
            spec,
            since,
            draining: false,
            parked: BTreeSet::new(),
            forking: BTreeSet::new(),
            queue: Queue::default(),
            history,
            target: 0,
            turn: 0,
            held: (0, 0),
            failures: 0,
            retry_at: 0,
        }
    }

    /// Parked, or about to be.
    pub(super) fn supply(&self) -> u32 {
        count(self.parked.len() + self.forking.len())
    }

    /// What the supply should be.
    pub(super) fn wanted(&self) -> u32 {
        if self.draining { 0 } else { (self.target + count(self.queue.len())).min(self.spec.max) }
    }

    /// Launches would notice that a fork is missing: somebody waits, or half the stock is gone.
    pub(super) fn is_urgent(&self) -> bool {
        self.queue.len() > self.forking.len() || count(self.parked.len()) * 2 < self.target
    }

    pub(super) fn is_below_floor(&self) -> bool {
        self.supply() < self.spec.min || self.queue.len() > self.forking.len()
    }

    /// How many sandboxes the pool would have, were there memory for all.
    pub(super) fn desired(&mut self, now: Nanos, config: &Config) -> u32 {
        if self.draining {
            return 0;
        }
        let learned = if config.learning { self.history.worth_keeping(now, config.keep_alive) } else { 0 };
        let level = learned.clamp(self.spec.min, self.spec.max).min(config.max_sandboxes);
        if level >= self.held.0 || now >= self.held.1 {
            self.held = (level, now + HOLD);
        }
        self.held.0.min(self.spec.max)
    }

    /// What the first, the second, and so on up to the target would save: launches a second that would otherwise
    /// be cold, for each byte.
    pub(super) fn values(&self, now: Nanos) -> impl Iterator<Item = f64> {
        let all = self.history.intensity(now) / self.spec.cost.max(1) as f64;
        (1..=self.target).map(move |count| all * self.history.share(count))
    }

    pub(super) fn launched(&mut self, now: Nanos) {
        let whole = self.forking.is_empty() && count(self.parked.len()) >= self.target;
        self.history.launched(now, whole);
    }

    pub(super) fn fork_failed(&mut self, now: Nanos) {
        if now >= self.retry_at {
            self.retry_at = now + (RETRY << self.failures.min(8));
            self.failures += 1;
        }
    }

    pub(super) fn fork_succeeded(&mut self) {
        (self.failures, self.retry_at) = (0, 0);
    }
}

/// Claims that wait for one pool, in fair order: each caller's first ones before anybody's second ones, and so on;
/// among equals the first come. Nobody is overtaken for ever, because the rounds count up.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<Turn, Waiter>,
    round: u64,
    arrivals: u64,
}

/// The round, and the arrival within all.
pub(super) type Turn = (u64, u64);

#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    pub(super) request: RequestId,
    pub(super) caller: Caller,
    pub(super) only: bool,
    pub(super) deadline: Nanos,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn push(&mut self, waiter: Waiter) -> Turn {
        let before = self.waiting.values().filter(|other| other.caller == waiter.caller).count();
        self.arrivals += 1;
        let turn = (self.round + before as u64, self.arrivals);
        self.waiting.insert(turn, waiter);
        turn
    }

    pub(super) fn pop(&mut self) -> Option<Waiter> {
        let (turn, waiter) = self.waiting.pop_first()?;
        self.round = turn.0;
        Some(waiter)
    }

    pub(super) fn remove(&mut self, turn: Turn) -> Option<Waiter> {
        self.waiting.remove(&turn)
    }
}

pub(super) fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}
