//! What others do, behind the policy's own words.

use std::collections::BTreeMap;

use hearth_shim::pool::policy::config::MINUTE;
use hearth_shim::pool::policy::{Action, End, Event, Generation, Nanos, Policy, PoolId, SandboxId, Why};

/// Whoever decides.
pub trait Decides {
    fn on(&mut self, now: Nanos, event: Event, actions: &mut Vec<Action>);
}

impl Decides for Policy {
    fn on(&mut self, now: Nanos, event: Event, actions: &mut Vec<Action>) {
        Self::on(self, now, event, actions);
    }
}

const KEPT: Nanos = 10 * MINUTE;

/// As functions platforms do it: what was launched stays warm for ten minutes, as many at a time as were needed at
/// a time; the least recently used goes first when memory runs out. Single use is kept: a used one is replaced.
#[derive(Debug)]
pub struct KeepAlive {
    budget: u64,
    cost: u64,
    next: u64,
    forking: BTreeMap<SandboxId, PoolId>,
    /// By the time until which they are kept.
    parked: BTreeMap<(Nanos, SandboxId), PoolId>,
    alarm: Nanos,
}

impl KeepAlive {
    pub fn new(budget: u64) -> Self {
        Self { budget, cost: 1, next: 1, forking: BTreeMap::new(), parked: BTreeMap::new(), alarm: 0 }
    }

    fn replace(&mut self, pool: PoolId, actions: &mut Vec<Action>) {
        let sandbox = SandboxId(self.next);
        self.next += 1;
        self.forking.insert(sandbox, pool);
        actions.push(Action::Fork { sandbox, pool, generation: Generation(1) });
    }

    fn expire(&mut self, now: Nanos, actions: &mut Vec<Action>) {
        while let Some(((until, sandbox), _)) = self.parked.first_key_value()
            && (*until <= now || self.cost * self.parked.len() as u64 > self.budget)
        {
            let why = if *until <= now { End::Idle } else { End::Evicted };
            actions.push(Action::Destroy { sandbox: *sandbox, why });
            self.parked.pop_first();
        }
        if let Some(((until, _), _)) = self.parked.first_key_value()
            && self.alarm <= now
        {
            self.alarm = *until;
            actions.push(Action::WakeAt { time: *until });
        }
    }
}

impl Decides for KeepAlive {
    fn on(&mut self, now: Nanos, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::PoolDeclared { spec, .. } => self.cost = spec.cost,
            Event::Claim { request, pool, .. } => {
                // The one that was used last.
                let found = self.parked.iter().rev().find(|(_, other)| **other == pool).map(|(key, _)| *key);
                if let Some(key) = found {
                    self.parked.remove(&key);
                    actions.push(Action::Grant { request, sandbox: key.1 });
                } else {
                    actions.push(Action::Cold { request, why: Why::Empty });
                }
                self.replace(pool, actions);
            }
            Event::Ready { sandbox, .. } => {
                if let Some(pool) = self.forking.remove(&sandbox) {
                    self.parked.insert((now + KEPT, sandbox), pool);
                }
            }
            Event::Released { sandbox } => actions.push(Action::Destroy { sandbox, why: End::Used }),
            _ => {}
        }
        self.expire(now, actions);
    }
}
