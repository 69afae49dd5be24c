//! Claims, and who holds and awaits how much.

use super::config::Nanos;
use super::stock::{Turn, Waiter, count};
use super::words::{Action, Caller, PoolId, RequestId, Why};
use super::{Holds, Policy};

impl Policy {
    pub(super) fn claim(&mut self, request: RequestId, pool: PoolId, caller: Caller, only: bool) {
        if self.requests.contains_key(&request) {
            return;
        }
        if let Err(why) = self.serve(request, pool, caller, only) {
            self.turn_away(request, only, why);
        }
    }

    /// Grants or enqueues.
    fn serve(&mut self, request: RequestId, pool: PoolId, caller: Caller, only: bool) -> Result<(), Why> {
        let holds = self.callers.get(&caller).copied().unwrap_or_default();
        let stock = self.pools.get_mut(&pool).ok_or(Why::NoPool)?;
        if stock.draining {
            return Err(Why::Draining);
        }
        if holds.leases + holds.waiting >= self.config.max_leases_per_caller {
            return Err(Why::CallerLimit);
        }
        stock.launched(self.now);
        self.raise(pool);
        let Some(stock) = self.pools.get_mut(&pool) else { return Err(Why::NoPool) };
        if !stock.parked.is_empty() {
            self.grant(pool, request, caller);
            self.note(pool);
            return Ok(());
        }
        if !only && stock.forking.len() <= stock.queue.len() {
            self.note(pool);
            return Err(Why::Empty);
        }
        let (all, own) = (self.config.max_waiting, self.config.max_waiting_per_caller);
        if count(stock.queue.len()) >= all || holds.waiting >= own {
            return Err(Why::QueueFull);
        }
        let deadline = self.now + if only { self.config.wait_only } else { self.config.wait };
        let turn = stock.queue.push(Waiter { request, caller, only, deadline });
        self.requests.insert(request, (pool, turn));
        self.deadlines.insert((deadline, request));
        self.callers.entry(caller).or_default().waiting += 1;
        self.note(pool);
        Ok(())
    }

    pub(super) fn cancel(&mut self, request: RequestId) {
        if let Some((pool, turn)) = self.requests.get(&request).copied() {
            self.take_out(pool, turn);
        }
    }

    /// Answers those who have waited as long as they may.
    pub(super) fn expire(&mut self) {
        while let Some((deadline, request)) = self.deadlines.first().copied()
            && deadline <= self.now
        {
            self.deadlines.pop_first();
            let Some((pool, turn)) = self.requests.get(&request).copied() else { continue };
            if let Some(waiter) = self.take_out(pool, turn) {
                self.turn_away(request, waiter.only, Why::Late);
            }
        }
    }

    /// Answers all that wait for the pool.
    pub(super) fn turn_all_away(&mut self, pool: PoolId, why: Why) {
        while let Some(waiter) = self.pools.get_mut(&pool).and_then(|stock| stock.queue.pop()) {
            self.stopped_waiting(waiter);
            self.turn_away(waiter.request, waiter.only, why);
        }
    }

    fn turn_away(&mut self, request: RequestId, only: bool, why: Why) {
        self.actions.push(match only {
            true => Action::Refuse { request, why },
            false => Action::Cold { request, why },
        });
    }

    fn take_out(&mut self, pool: PoolId, turn: Turn) -> Option<Waiter> {
        let waiter = self.pools.get_mut(&pool)?.queue.remove(turn)?;
        self.stopped_waiting(waiter);
        self.note(pool);
        Some(waiter)
    }

    pub(super) fn stopped_waiting(&mut self, waiter: Waiter) {
        self.requests.remove(&waiter.request);
        self.deadlines.remove(&(waiter.deadline, waiter.request));
        self.holds(waiter.caller, |holds| holds.waiting -= 1);
    }

    /// Changes what a caller holds; one that holds nothing is forgotten.
    pub(super) fn holds(&mut self, caller: Caller, change: impl FnOnce(&mut Holds)) {
        let Some(holds) = self.callers.get_mut(&caller) else { return };
        change(holds);
        if holds.leases + holds.waiting == 0 {
            self.callers.remove(&caller);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Nanos> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}
