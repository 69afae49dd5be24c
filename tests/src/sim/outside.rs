//! The daemon and the kernel, as a model: one forker that makes sandboxes one after the other, launches that take
//! a moment to start and a while to run, teardown on the side.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use hearth_shim::pool::policy::config::{MILLISECOND, SECOND};
use hearth_shim::pool::policy::{
    Action, BundleKey, Caller, Event, Generation, Nanos, Pool, PoolId, RequestId, SandboxId,
};

use super::rivals::Decides;
use super::trace::{Dice, Trace};
use crate::bench::report::Cell;
use crate::bench::stats::percentile;

/// Bytes of a parked sandbox.
pub const COST: u64 = 600 << 10;
/// The forker makes one in 2 to 3 ms (300 to 500 a second, with a network namespace each).
const FORK: (Nanos, u64) = (2 * MILLISECOND, 1_000_000);
/// From the grant to the program's first instruction; what the program takes then; teardown.
const START: Nanos = MILLISECOND;
const PROGRAM: Nanos = 50 * MILLISECOND;
const TEARDOWN: Nanos = 2 * MILLISECOND;

/// Of a pool that was not declared with a fixed size.
pub const MOST: u32 = 64;

pub const COLUMNS: [&str; 8] =
    ["hits %", "at once %", "mean MiB", "most MiB", "wait p99 ms", "cold", "unused", "wasted MiB h"];

#[derive(Debug, Default)]
pub struct Outcome {
    launches: u64,
    hits: u64,
    /// Microseconds that the granted ones waited, zero included.
    waits: Vec<u32>,
    cold: u64,
    /// Sandboxes destroyed before anybody used them, and the byte-nanoseconds that they were parked for.
    unused: u64,
    wasted: f64,
    /// Byte-nanoseconds of all that was parked, over how long, and the most at a time.
    held: f64,
    length: Nanos,
    most: u64,
}

impl Outcome {
    /// In the order of [`COLUMNS`].
    pub fn cells(mut self) -> Vec<Cell> {
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let percent = |part: u64| Some(100.0 * part as f64 / self.launches.max(1) as f64);
        let at_once = self.waits.iter().filter(|wait| **wait == 0).count() as u64;
        self.waits.sort_unstable();
        vec![
            Cell::of(percent(self.hits), 2),
            Cell::of(percent(at_once), 2),
            Cell::of(Some(mib(self.held / self.length as f64)), 2),
            Cell::of(Some(mib(self.most as f64)), 1),
            Cell::of(percentile(&self.waits, 990).map(|wait| f64::from(wait) / 1_000.0), 2),
            Cell::of(Some(self.cold as f64), 0),
            Cell::of(Some(self.unused as f64), 0),
            Cell::of(Some(mib(self.wasted / (3_600 * SECOND) as f64)), 2),
        ]
    }
}

/// Replays the trace. `declared`: every bundle has a pool with this min and max; else pools are what is learned.
pub fn run(trace: &Trace, decides: &mut dyn Decides, declared: Option<(u32, u32)>) -> Outcome {
    let mut outside = Outside {
        decides,
        now: 0,
        due: BinaryHeap::new(),
        alarm: Nanos::MAX,
        forker_free: 0,
        dice: Dice::new(7),
        pools: BTreeSet::new(),
        asked: BTreeMap::new(),
        parked: BTreeMap::new(),
        outcome: Outcome { length: trace.length, ..Outcome::default() },
    };
    if let Some((min, max)) = declared {
        (0..trace.bundles).for_each(|bundle| outside.declare(bundle, min, max, None));
    }
    for (time, bundle) in &trace.launches {
        outside.pass_until(*time);
        outside.launch(*bundle);
    }
    outside.pass_until(trace.length);
    outside.end();
    outside.outcome
}

struct Outside<'a> {
    decides: &'a mut dyn Decides,
    now: Nanos,
    /// Events to come.
    due: BinaryHeap<Reverse<(Nanos, SandboxId, Then)>>,
    alarm: Nanos,
    forker_free: Nanos,
    dice: Dice,
    pools: BTreeSet<u32>,
    asked: BTreeMap<RequestId, Nanos>,
    /// Since when.
    parked: BTreeMap<SandboxId, Nanos>,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Then {
    Ready,
    Launched,
    Released,
    Destroyed,
}

impl Outside<'_> {
    fn declare(&mut self, bundle: u32, min: u32, max: u32, learned: Option<BundleKey>) {
        self.pools.insert(bundle);
        let spec = Pool { min, max, cost: COST, generation: Generation(1), learned };
        self.send(Event::PoolDeclared { pool: PoolId(bundle), spec });
    }

    fn launch(&mut self, bundle: u32) {
        self.outcome.launches += 1;
        if self.pools.contains(&bundle) {
            let request = RequestId(self.outcome.launches);
            self.asked.insert(request, self.now);
            self.send(Event::Claim { request, pool: PoolId(bundle), caller: Caller(0), only: false });
        } else {
            self.outcome.cold += 1;
            self.send(Event::Observed { bundle: BundleKey(bundle.into()) });
        }
    }

    fn pass_until(&mut self, end: Nanos) {
        loop {
            let next = self.due.peek().map_or(Nanos::MAX, |Reverse((time, _, _))| *time);
            if next.min(self.alarm) > end {
                break;
            }
            if self.alarm < next {
                self.now = std::mem::replace(&mut self.alarm, Nanos::MAX);
                self.send(Event::Tick);
            } else if let Some(Reverse((time, sandbox, then))) = self.due.pop() {
                self.now = time;
                self.happen(sandbox, then);
            }
        }
        self.now = end;
    }

    fn happen(&mut self, sandbox: SandboxId, then: Then) {
        match then {
            Then::Ready => {
                self.parked.insert(sandbox, self.now);
                self.outcome.most = self.outcome.most.max(self.parked.len() as u64 * COST);
                self.send(Event::Ready { sandbox, cost: COST });
            }
            Then::Launched => self.send(Event::Launched { sandbox }),
            Then::Released => self.send(Event::Released { sandbox }),
            Then::Destroyed => self.send(Event::Destroyed { sandbox }),
        }
    }

    fn send(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.decides.on(self.now, event, &mut actions);
        actions.into_iter().for_each(|action| self.act(action));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Grant { request, sandbox } => {
                self.unpark(sandbox);
                self.outcome.hits += 1;
                let wait = self.asked.remove(&request).map_or(0, |asked| self.now - asked);
                self.outcome.waits.push(u32::try_from(wait / 1_000).unwrap_or(u32::MAX));
                self.after(START, sandbox, Then::Launched);
                self.after(START + PROGRAM, sandbox, Then::Released);
            }
            Action::Cold { request, .. } | Action::Refuse { request, .. } => {
                self.asked.remove(&request);
                self.outcome.cold += 1;
            }
            Action::Fork { sandbox, .. } => {
                self.forker_free = self.forker_free.max(self.now) + FORK.0 + self.dice.below(FORK.1);
                self.due.push(Reverse((self.forker_free, sandbox, Then::Ready)));
            }
            Action::Destroy { sandbox, .. } => {
                if let Some(held) = self.unpark(sandbox) {
                    self.outcome.unused += 1;
                    self.outcome.wasted += held;
                }
                self.after(TEARDOWN, sandbox, Then::Destroyed);
            }
            Action::Learn { bundle } => {
                if let Ok(number) = u32::try_from(bundle.0) {
                    self.declare(number, 0, MOST, Some(bundle));
                }
            }
            Action::Forget { pool } => {
                self.pools.remove(&pool.0);
                self.send(Event::PoolDeleted { pool });
            }
            Action::WakeAt { time } => self.alarm = time,
        }
    }

    fn after(&mut self, span: Nanos, sandbox: SandboxId, then: Then) {
        self.due.push(Reverse((self.now + span, sandbox, then)));
    }

    /// What it cost to have it parked, if it was.
    fn unpark(&mut self, sandbox: SandboxId) -> Option<f64> {
        let held = (self.now - self.parked.remove(&sandbox)?) as f64 * COST as f64;
        self.outcome.held += held;
        Some(held)
    }

    /// What is parked at the end has cost something, too.
    fn end(&mut self) {
        let left: Nanos = self.parked.values().map(|since| self.now - since).sum();
        self.outcome.held += left as f64 * COST as f64;
    }
}
