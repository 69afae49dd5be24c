//! Pools: declared, changed, drained, deleted.

use super::Policy;
use super::history::History;
use super::stock::Stock;
use super::words::{End, Generation, Pool, PoolId, Why};

impl Policy {
    pub(super) fn declare(&mut self, pool: PoolId, mut spec: Pool) {
        spec.max = spec.max.max(spec.min);
        if let Some(stock) = self.pools.get(&pool) {
            if stock.spec.generation == spec.generation {
                spec.cost = spec.cost.max(stock.spec.cost);
            }
            self.change_generation(pool, spec.generation);
            self.with(pool, |stock| (stock.spec, stock.draining) = (spec, false));
        } else {
            let history = spec.learned.and_then(|bundle| self.recall(bundle)).unwrap_or(History::new());
            self.pools.insert(pool, Stock::new(spec, history, self.now));
        }
        self.plan();
    }

    pub(super) fn resize(&mut self, pool: PoolId, min: u32, max: u32) {
        self.with(pool, |stock| {
            (stock.spec.min, stock.spec.max) = (min, max.max(min));
            stock.draining = false;
        });
        self.plan();
    }

    pub(super) fn drain(&mut self, pool: PoolId) {
        self.with(pool, |stock| stock.draining = true);
        self.turn_all_away(pool, Why::Draining);
        self.trim(pool, End::Drained);
        self.note(pool);
    }

    pub(super) fn delete(&mut self, pool: PoolId) {
        self.drain(pool);
        let Some(stock) = self.pools.remove(&pool) else { return };
        self.note(pool);
        if let Some(bundle) = stock.spec.learned {
            self.keep(bundle, stock.history);
        }
    }

    pub(super) fn change_generation(&mut self, pool: PoolId, generation: Generation) {
        let Some(stock) = self.pools.get_mut(&pool) else { return };
        if stock.spec.generation == generation {
            return;
        }
        stock.spec.generation = generation;
        stock.fork_succeeded();
        for sandbox in stock.parked.clone() {
            self.destroy(sandbox, End::Stale);
        }
        for sandbox in self.pools.get(&pool).map(|stock| stock.forking.clone()).unwrap_or_default() {
            self.doom(sandbox, End::Stale);
        }
        self.note(pool);
    }

    pub(super) fn with(&mut self, pool: PoolId, change: impl FnOnce(&mut Stock)) {
        if let Some(stock) = self.pools.get_mut(&pool) {
            change(stock);
        }
    }
}
