//! What the policy's answers cost in real time, with a hundred pools and a thousand parked sandboxes.

use std::fmt::Write;
use std::time::{Duration, Instant};

use hearth_shim::pool::policy::config::{MILLISECOND, Nanos};
use hearth_shim::pool::policy::{
    Action, Caller, Config, Event, Generation, Policy, Pool, PoolId, RequestId, SandboxId,
};

use crate::bench::stats::percentile;

const POOLS: u32 = 100;
const EACH: u32 = 10;
const LAUNCHES: u64 = 20_000;

struct Loop {
    policy: Policy,
    now: Nanos,
    actions: Vec<Action>,
    /// By event: its name, and what each took, in nanoseconds.
    took: [(&'static str, Vec<u32>); 6],
}

impl Loop {
    fn send(&mut self, which: usize, event: Event) {
        self.actions.clear();
        let start = Instant::now();
        self.policy.on(self.now, event, &mut self.actions);
        self.took[which].1.push(nanos(start.elapsed()));
    }

    fn forks(&self) -> Vec<SandboxId> {
        let fork = |action: &Action| match action {
            Action::Fork { sandbox, .. } => Some(*sandbox),
            _ => None,
        };
        self.actions.iter().filter_map(fork).collect()
    }

    /// Answers forks until there are none.
    fn make(&mut self, mut forks: Vec<SandboxId>) {
        while let Some(sandbox) = forks.pop() {
            self.send(2, Event::Ready { sandbox, cost: 600 << 10 });
            forks.extend(self.forks());
        }
    }
}

pub fn measure() -> String {
    let names = ["claim", "launched", "ready", "released", "destroyed", "declare"];
    let config = Config { budget: 1 << 30, ..Config::default() };
    let mut one = Loop {
        policy: Policy::new(config),
        now: 1,
        actions: Vec::new(),
        took: names.map(|name| (name, Vec::new())),
    };
    for pool in (0..POOLS).map(PoolId) {
        let spec =
            Pool { min: EACH, max: 2 * EACH, cost: 600 << 10, generation: Generation(1), learned: None };
        one.send(5, Event::PoolDeclared { pool, spec });
        one.make(one.forks());
    }
    for launch in 0..LAUNCHES {
        let pool = PoolId(u32::try_from(launch * 37 % u64::from(POOLS)).unwrap_or(0));
        let claim = Event::Claim { request: RequestId(launch), pool, caller: Caller(0), only: false };
        one.send(0, claim);
        let granted = one.actions.iter().find_map(|action| match action {
            Action::Grant { sandbox, .. } => Some(*sandbox),
            _ => None,
        });
        let Some(sandbox) = granted else { continue };
        one.make(one.forks());
        one.now += MILLISECOND;
        one.send(1, Event::Launched { sandbox });
        one.make(one.forks());
        one.send(3, Event::Released { sandbox });
        one.send(4, Event::Destroyed { sandbox });
        one.make(one.forks());
    }
    let mut text = format!("{POOLS} pools, {} parked; nanoseconds an event\n", POOLS * EACH);
    for (name, took) in &mut one.took {
        took.sort_unstable();
        let [p50, p99, most] = [500, 990, 1000].map(|permille| percentile(took, permille).unwrap_or(0));
        let _ = writeln!(text, "  {name:<10} p50 {p50:>6}  p99 {p99:>6}  most {most:>8}  n {}", took.len());
    }
    text
}

fn nanos(span: Duration) -> u32 {
    u32::try_from(span.as_nanos()).unwrap_or(u32::MAX)
}
