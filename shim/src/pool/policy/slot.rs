//! One sandbox, from the fork to the end.
//!
//! ```text
//!  Fork ──> Forking ──Ready──> Parked ──Grant──> Leased
//!              │                  │                │ Released, Died
//!              │ Ready, no longer │ Died, or       │
//!              │ wanted           │ not wanted     │
//!  ForkFailed ─┤                  v                v
//!     │        └─────────────> Dying (Destroy was said) ──Destroyed──> gone
//!     └──> gone
//! ```
//!
//! There is no way back from Leased to Parked: single use.

use super::Policy;
use super::stock::count;
use super::words::{Action, Caller, End, Generation, PoolId, RequestId, SandboxId};

#[derive(Debug)]
pub(super) struct Slot {
    /// Its pool, which may be gone where the slot is neither parked nor forking for it.
    pool: PoolId,
    /// Expected, and from Ready on real.
    cost: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// With why it is destroyed as soon as it is ready, if it is not wanted any more.
    Forking(Option<End>),
    Parked,
    /// By whom, and whether it still has to start its program.
    Leased(Caller, bool),
    Dying,
}

impl Policy {
    pub(super) fn fork(&mut self, pool: PoolId) {
        self.turn += 1;
        let Some(stock) = self.pools.get_mut(&pool) else { return };
        let sandbox = SandboxId(self.next_sandbox);
        self.next_sandbox += 1;
        stock.turn = self.turn;
        stock.forking.insert(sandbox);
        let (cost, generation) = (stock.spec.cost, stock.spec.generation);
        self.forks += 1;
        self.memory.live += cost;
        self.slots.insert(sandbox, Slot { pool, cost, state: State::Forking(None) });
        self.actions.push(Action::Fork { sandbox, pool, generation });
        self.note(pool);
    }

    pub(super) fn ready(&mut self, sandbox: SandboxId, cost: u64) {
        let Some(slot) = self.slots.get_mut(&sandbox) else { return };
        let State::Forking(unwanted) = slot.state else { return };
        self.forks -= 1;
        self.memory.live = self.memory.live - slot.cost + cost;
        (slot.cost, slot.state) = (cost, State::Parked);
        let pool = slot.pool;
        match (unwanted, self.pools.get_mut(&pool)) {
            (None, Some(stock)) => {
                stock.forking.remove(&sandbox);
                stock.fork_succeeded();
                stock.spec.cost = stock.spec.cost.max(cost);
                self.park(sandbox, pool);
            }
            (unwanted, _) => self.destroy(sandbox, unwanted.unwrap_or(End::Drained)),
        }
    }

    /// Into the stock, or to the one who waits for it.
    fn park(&mut self, sandbox: SandboxId, pool: PoolId) {
        let Some(stock) = self.pools.get_mut(&pool) else { return };
        stock.parked.insert(sandbox);
        stock.history.refilled(count(stock.parked.len()) >= stock.target);
        if let Some(waiter) = stock.queue.pop() {
            self.stopped_waiting(waiter);
            self.grant(pool, waiter.request, waiter.caller);
        }
        self.note(pool);
        if self.memory.live > self.memory.allowed {
            self.plan();
        }
    }

    pub(super) fn found_parked(
        &mut self,
        (sandbox, cost): (SandboxId, u64),
        pool: PoolId,
        generation: Generation,
    ) {
        if self.slots.contains_key(&sandbox) {
            return;
        }
        self.next_sandbox = self.next_sandbox.max(sandbox.0 + 1);
        self.memory.live += cost;
        self.slots.insert(sandbox, Slot { pool, cost, state: State::Parked });
        let fits = self.memory.live <= self.memory.allowed;
        match self.pools.get_mut(&pool) {
            Some(stock) if stock.spec.generation != generation => self.destroy(sandbox, End::Stale),
            Some(stock) if fits && !stock.draining && stock.supply() < stock.spec.max => {
                stock.spec.cost = stock.spec.cost.max(cost);
                self.park(sandbox, pool);
            }
            _ => self.destroy(sandbox, End::Drained),
        }
    }

    pub(super) fn found_running(&mut self, sandbox: SandboxId, caller: Caller) {
        if self.slots.contains_key(&sandbox) {
            return;
        }
        self.next_sandbox = self.next_sandbox.max(sandbox.0 + 1);
        let slot = Slot { pool: PoolId(u32::MAX), cost: 0, state: State::Leased(caller, false) };
        self.slots.insert(sandbox, slot);
        self.callers.entry(caller).or_default().leases += 1;
    }

    /// The youngest parked one of the pool, to the request. There is one.
    pub(super) fn grant(&mut self, pool: PoolId, request: RequestId, caller: Caller) {
        let Some(sandbox) = self.pools.get_mut(&pool).and_then(|stock| stock.parked.pop_last()) else {
            return;
        };
        let Some(slot) = self.slots.get_mut(&sandbox) else { return };
        slot.state = State::Leased(caller, true);
        self.memory.live -= slot.cost;
        self.callers.entry(caller).or_default().leases += 1;
        self.starting += 1;
        self.last_grant = self.now;
        self.actions.push(Action::Grant { request, sandbox });
    }

    pub(super) fn launched(&mut self, sandbox: SandboxId) {
        let slot = self.slots.get_mut(&sandbox);
        if let Some(State::Leased(_, starting)) = slot.map(|slot| &mut slot.state)
            && std::mem::take(starting)
        {
            self.starting -= 1;
        }
    }

    pub(super) fn released(&mut self, sandbox: SandboxId) {
        if let Some(Slot { state: State::Leased(..), .. }) = self.slots.get(&sandbox) {
            self.destroy(sandbox, End::Used);
        }
    }

    pub(super) fn died(&mut self, sandbox: SandboxId) {
        match self.slots.get(&sandbox).map(|slot| &slot.state) {
            Some(State::Leased(..)) => self.destroy(sandbox, End::Used),
            Some(State::Parked) => self.destroy(sandbox, End::Died),
            Some(State::Forking(_)) => {
                self.failed(sandbox);
                self.destroy(sandbox, End::Died);
            }
            Some(State::Dying) | None => {}
        }
    }

    pub(super) fn fork_failed(&mut self, sandbox: SandboxId) {
        if let Some(Slot { state: State::Forking(_), .. }) = self.slots.get(&sandbox) {
            self.failed(sandbox);
            self.leave(sandbox);
            self.slots.remove(&sandbox);
        }
    }

    fn failed(&mut self, sandbox: SandboxId) {
        let now = self.now;
        let pool = self.slots.get(&sandbox).map(|slot| slot.pool);
        let stock = pool.and_then(|pool| self.pools.get_mut(&pool));
        if let Some(stock) = stock.filter(|stock| stock.forking.contains(&sandbox)) {
            stock.fork_failed(now);
        }
    }

    pub(super) fn destroyed(&mut self, sandbox: SandboxId) {
        if let Some(Slot { state: State::Dying, cost, .. }) = self.slots.get(&sandbox) {
            self.memory.dying -= cost;
            self.slots.remove(&sandbox);
        }
    }

    /// Takes a slot in any state but Dying to its end. One that is being forked is destroyed once it is ready.
    pub(super) fn destroy(&mut self, sandbox: SandboxId, why: End) {
        self.leave(sandbox);
        if let Some(slot) = self.slots.get_mut(&sandbox) {
            slot.state = State::Dying;
            self.memory.dying += slot.cost;
            self.actions.push(Action::Destroy { sandbox, why });
        }
    }

    /// Takes back what the slot's state holds.
    fn leave(&mut self, sandbox: SandboxId) {
        let Some(slot) = self.slots.get(&sandbox) else { return };
        let (pool, cost) = (slot.pool, slot.cost);
        match slot.state {
            State::Forking(_) => {
                self.forks -= 1;
                self.memory.live -= cost;
                self.with(pool, |stock| _ = stock.forking.remove(&sandbox));
            }
            State::Parked => {
                self.memory.live -= cost;
                self.with(pool, |stock| _ = stock.parked.remove(&sandbox));
            }
            State::Leased(caller, starting) => {
                self.starting -= u32::from(starting);
                self.holds(caller, |holds| holds.leases -= 1);
            }
            State::Dying => self.memory.dying -= cost,
        }
    }

    /// One that is being forked is not wanted any more.
    pub(super) fn doom(&mut self, sandbox: SandboxId, why: End) {
        let Some(slot) = self.slots.get_mut(&sandbox) else { return };
        slot.state = State::Forking(Some(why));
        let pool = slot.pool;
        self.with(pool, |stock| _ = stock.forking.remove(&sandbox));
    }
}
