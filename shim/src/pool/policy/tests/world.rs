//! What is outside of the policy, as a model that checks every action against what it knows.

use std::collections::{BTreeMap, BTreeSet};

use super::super::config::SECOND;
use super::super::*;

pub(super) const MIB: u64 = 1 << 20;

pub(super) fn spec(min: u32, max: u32) -> Pool {
    Pool { min, max, cost: MIB, generation: Generation(1), learned: None }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) pool: PoolId,
    pub(super) generation: Generation,
    pub(super) cost: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pool: PoolId,
    caller: u32,
    only: bool,
    deadline: Nanos,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) policy: Policy,
    pub(super) now: Nanos,
    alarm: Option<Nanos>,
    pub(super) pools: BTreeMap<PoolId, Pool>,
    draining: BTreeSet<PoolId>,
    pub(super) forks: BTreeMap<SandboxId, Made>,
    pub(super) parked: BTreeMap<SandboxId, Made>,
    pub(super) leased: BTreeMap<SandboxId, u32>,
    /// Died or ready, and to be destroyed by the event that is being handled.
    lost: BTreeSet<SandboxId>,
    pub(super) dying: BTreeSet<SandboxId>,
    pub(super) ever: BTreeSet<SandboxId>,
    pub(super) open: BTreeMap<RequestId, Asked>,
    requests: u64,
    pub(super) granted: Vec<(RequestId, SandboxId, u32)>,
    pub(super) cold: Vec<Why>,
    pub(super) refused: Vec<Why>,
    pub(super) destroyed_for: Vec<End>,
    pub(super) learned: Vec<BundleKey>,
    pub(super) forgotten: Vec<PoolId>,
    /// Every action ever, for comparison.
    pub(super) log: Vec<(Nanos, Action)>,
}

impl World {
    pub(super) fn new(config: Config) -> Self {
        Self {
            policy: Policy::new(config),
            now: SECOND,
            alarm: None,
            pools: BTreeMap::new(),
            draining: BTreeSet::new(),
            forks: BTreeMap::new(),
            parked: BTreeMap::new(),
            leased: BTreeMap::new(),
            lost: BTreeSet::new(),
            dying: BTreeSet::new(),
            ever: BTreeSet::new(),
            open: BTreeMap::new(),
            requests: 0,
            granted: Vec::new(),
            cold: Vec::new(),
            refused: Vec::new(),
            destroyed_for: Vec::new(),
            learned: Vec::new(),
            forgotten: Vec::new(),
            log: Vec::new(),
        }
    }

    pub(super) fn send(&mut self, event: Event) {
        self.know(event);
        let mut actions = Vec::new();
        self.policy.on(self.now, event, &mut actions);
        let forked = actions.iter().any(|action| matches!(action, Action::Fork { .. }));
        for action in actions {
            self.log.push((self.now, action));
            self.check(action);
        }
        self.check_state(forked);
    }

    /// What the event says about the world.
    fn know(&mut self, event: Event) {
        match event {
            Event::PoolDeclared { pool, spec } => {
                self.draining.remove(&pool);
                self.pools.insert(pool, Pool { max: spec.max.max(spec.min), ..spec });
            }
            Event::PoolResized { pool, min, max } => {
                if let Some(spec) = self.pools.get_mut(&pool) {
                    (spec.min, spec.max) = (min, max.max(min));
                    self.draining.remove(&pool);
                }
            }
            Event::PoolDrained { pool } => _ = self.draining.insert(pool),
            Event::PoolDeleted { pool } => _ = self.pools.remove(&pool),
            Event::GenerationChanged { pool, generation } => {
                if let Some(spec) = self.pools.get_mut(&pool) {
                    spec.generation = generation;
                }
            }
            _ => {}
        }
    }

    fn check(&mut self, action: Action) {
        match action {
            Action::Grant { request, sandbox } => {
                let asked = self.open.remove(&request).expect("granted, but not asked, or answered before");
                let made = self.parked.remove(&sandbox).expect("granted, but not parked");
                assert_eq!(made.pool, asked.pool, "granted from another pool");
                assert_eq!(made.generation, self.pools[&made.pool].generation, "granted an old one");
                assert!(!self.draining.contains(&made.pool), "granted from a drained pool");
                assert!(self.now < asked.deadline, "granted too late");
                self.leased.insert(sandbox, asked.caller);
                self.granted.push((request, sandbox, asked.caller));
            }
            Action::Cold { request, why } => {
                let asked = self.open.remove(&request).expect("cold, but not asked, or answered before");
                assert!(!asked.only, "cold, though only the pool was wanted");
                self.cold.push(why);
            }
            Action::Refuse { request, why } => {
                let asked = self.open.remove(&request).expect("refused, but not asked, or answered before");
                assert!(asked.only, "refused, though cold would have done");
                self.refused.push(why);
            }
            Action::Fork { sandbox, pool, generation } => {
                let spec = self.pools.get(&pool).expect("forked for no pool");
                assert!(!self.draining.contains(&pool), "forked for a drained pool");
                assert_eq!(generation, spec.generation, "forked an old one");
                assert!(self.ever.insert(sandbox), "a name is used twice");
                self.forks.insert(sandbox, Made { pool, generation, cost: spec.cost });
            }
            Action::Destroy { sandbox, why } => {
                let there = self.parked.remove(&sandbox).is_some()
                    || self.leased.remove(&sandbox).is_some()
                    || self.lost.remove(&sandbox);
                assert!(there, "destroyed {sandbox:?}, which is not there");
                assert!(self.dying.insert(sandbox), "destroyed twice");
                self.destroyed_for.push(why);
            }
            Action::Learn { bundle } => self.learned.push(bundle),
            Action::Forget { pool } => {
                assert!(self.pools[&pool].learned.is_some(), "forgot a declared pool");
                self.draining.insert(pool);
                self.forgotten.push(pool);
            }
            Action::WakeAt { time } => {
                assert!(time > self.now, "asked for a tick in the past");
                self.alarm = Some(time);
            }
        }
    }

    fn check_state(&self, forked: bool) {
        assert!(self.lost.is_empty(), "not destroyed: {:?}", self.lost);
        for (pool, spec) in &self.pools {
            let view = self.policy.pool(*pool).unwrap();
            assert_eq!(view.parked, self.parked_of(*pool), "{pool:?}");
            let forking = self.forks.values().filter(|made| made.pool == *pool).count();
            assert!(view.forking as usize <= forking);
            assert!(view.parked + view.forking <= spec.max, "{pool:?} holds too many: {view:?}");
            assert!(view.waiting == 0 || view.parked == 0, "{pool:?}: they wait for what is there");
            let open = self.open.values().filter(|asked| asked.pool == *pool).count();
            assert_eq!(view.waiting as usize, open);
        }
        let config = self.policy.config();
        let sum: u64 = self.parked.values().map(|made| made.cost).sum();
        let (used, allowed) = self.policy.memory();
        assert!(sum <= allowed.min(config.budget), "{sum} bytes are parked, {allowed} are allowed");
        assert!(!forked || used <= allowed, "forked, though there is no memory");
        assert!(self.forks.len() <= config.max_forks as usize, "too many forks at once");
        let all = self.forks.len() + self.parked.len() + self.leased.len() + self.dying.len();
        assert!(!forked || all <= config.max_sandboxes as usize, "too many sandboxes");
        for asked in self.open.values() {
            assert!(asked.deadline > self.now, "an answer is overdue");
            assert!(self.alarm.is_some_and(|alarm| alarm <= asked.deadline), "nobody will wake us in time");
        }
    }

    /// Time passes, and the alarm rings.
    pub(super) fn pass(&mut self, span: Nanos) {
        let end = self.now + span;
        while let Some(alarm) = self.alarm.filter(|alarm| *alarm <= end) {
            self.alarm = None;
            self.now = alarm;
            self.send(Event::Tick);
        }
        self.now = end;
    }

    /// The machine sleeps; nobody waits for anything.
    pub(super) fn leap(&mut self, span: Nanos) {
        self.pass(self.policy.config().wait_only);
        self.now += span;
        self.alarm = None;
        self.send(Event::Tick);
    }

    pub(super) fn declare(&mut self, pool: PoolId, spec: Pool) {
        self.send(Event::PoolDeclared { pool, spec });
    }

    pub(super) fn claim(&mut self, pool: PoolId, caller: u32, only: bool) {
        self.requests += 1;
        let request = RequestId(self.requests);
        let config = self.policy.config();
        let deadline = self.now + if only { config.wait_only } else { config.wait };
        self.open.insert(request, Asked { pool, caller, only, deadline });
        self.send(Event::Claim { request, pool, caller: Caller(caller), only });
    }

    pub(super) fn cancel(&mut self, request: RequestId) {
        self.open.remove(&request);
        self.send(Event::ClaimCancelled { request });
    }

    pub(super) fn finish_fork(&mut self, sandbox: SandboxId, cost: u64) {
        let made = self.forks.remove(&sandbox).unwrap();
        self.parked.insert(sandbox, Made { cost, ..made });
        self.send(Event::Ready { sandbox, cost });
    }

    /// The oldest.
    pub(super) fn finish_a_fork(&mut self) {
        let (sandbox, made) = self.forks.iter().next().map(|(sandbox, made)| (*sandbox, *made)).unwrap();
        self.finish_fork(sandbox, made.cost);
    }

    pub(super) fn finish_forks(&mut self) {
        for (sandbox, made) in self.forks.clone() {
            self.finish_fork(sandbox, made.cost);
        }
    }

    pub(super) fn fail_fork(&mut self, sandbox: SandboxId) {
        self.forks.remove(&sandbox);
        self.send(Event::ForkFailed { sandbox });
    }

    pub(super) fn die(&mut self, sandbox: SandboxId) {
        if self.forks.remove(&sandbox).is_some() || self.parked.remove(&sandbox).is_some() {
            self.lost.insert(sandbox);
        }
        self.send(Event::Died { sandbox });
    }

    pub(super) fn launch_all(&mut self) {
        for sandbox in self.leased.clone().into_keys() {
            self.send(Event::Launched { sandbox });
        }
    }

    pub(super) fn release_one(&mut self) {
        let sandbox = *self.leased.keys().next().unwrap();
        self.send(Event::Released { sandbox });
    }

    pub(super) fn release_all(&mut self) {
        for sandbox in self.leased.clone().into_keys() {
            self.send(Event::Released { sandbox });
        }
    }

    pub(super) fn find_parked(&mut self, sandbox: SandboxId, pool: PoolId, generation: Generation) {
        assert!(self.ever.insert(sandbox));
        self.parked.insert(sandbox, Made { pool, generation, cost: MIB });
        self.send(Event::FoundParked { sandbox, pool, generation, cost: MIB });
    }

    pub(super) fn find_running(&mut self, sandbox: SandboxId, caller: u32) {
        assert!(self.ever.insert(sandbox));
        self.leased.insert(sandbox, caller);
        self.send(Event::FoundRunning { sandbox, caller: Caller(caller) });
    }

    pub(super) fn gone(&mut self, sandbox: SandboxId) {
        self.dying.remove(&sandbox);
        self.send(Event::Destroyed { sandbox });
    }

    /// All that is under way comes to its end, in no time.
    pub(super) fn settle(&mut self) {
        self.launch_all();
        while !self.forks.is_empty() || !self.dying.is_empty() {
            self.launch_all();
            for sandbox in self.dying.clone() {
                self.gone(sandbox);
            }
            self.finish_forks();
        }
    }

    pub(super) fn parked_of(&self, pool: PoolId) -> u32 {
        count(self.parked.values().filter(|made| made.pool == pool).count())
    }

    pub(super) fn granted_to(&self) -> Vec<u32> {
        self.granted.iter().map(|(_, _, caller)| *caller).collect()
    }
}
