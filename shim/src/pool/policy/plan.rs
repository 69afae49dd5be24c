//! How much of the memory each pool gets, and what is destroyed therefor.
//!
//! While the memory suffices, each pool's target is what it desires. When it doesn't, floors come first, all pools'
//! first sandboxes before anybody's second ones; the rest goes to whatever saves most cold launches for each byte.
//! What is already there counts for a little more, so that two pools of like value don't take turns.

use super::Policy;
use super::config::{MILLISECOND, Nanos, SECOND};
use super::words::{End, PoolId};

/// How often the targets are looked at again.
const EVERY: Nanos = SECOND;
/// The same while a pool that is launched from lacks memory.
const SOON: Nanos = 20 * MILLISECOND;
/// What a sandbox that is there is worth, compared to one that would have to be made.
const BEING_THERE: f64 = 1.5;
/// Pressure (avg10, in percent) at which the memory allowed shrinks: to the floors, and below them.
const SOME: f32 = 20.0;
const FULL: f32 = 5.0;
/// Pressure below which it grows again.
const CALM: (f32, f32) = (5.0, 1.0);
/// The averages take their time to fall: no further cut before.
const CUT_AGAIN: Nanos = 3 * SECOND;

/// Bytes of sandboxes.
#[derive(Debug)]
pub(super) struct Memory {
    /// Parked and being made.
    pub(super) live: u64,
    /// Being destroyed.
    pub(super) dying: u64,
    /// What `live` may be: the budget, or less under pressure.
    pub(super) allowed: u64,
    pub(super) cut_again: Nanos,
}

/// One sandbox that a pool would like to have.
struct Unit {
    pool: PoolId,
    /// Its number within the floor; none above.
    floor: Option<u32>,
    value: f64,
}

impl Policy {
    /// Looks at all targets again, and destroys what is above them.
    pub(super) fn plan(&mut self) {
        self.planned_at = self.now;
        self.plan_again = self.now + EVERY;
        for stock in self.pools.values_mut() {
            stock.target = stock.desired(self.now, &self.config);
        }
        let scarce = self.planned() > self.memory.allowed;
        if scarce {
            self.share_out();
        }
        let pools: Vec<PoolId> = self.pools.keys().copied().collect();
        for pool in pools {
            self.trim(pool, if scarce { End::Evicted } else { End::Idle });
            self.note(pool);
        }
    }

    /// What it would cost to have all targets met.
    fn planned(&self) -> u64 {
        self.pools
            .values()
            .map(|stock| stock.spec.cost.saturating_mul(stock.target.into()))
            .fold(0, u64::saturating_add)
    }

    fn share_out(&mut self) {
        let mut units = Vec::new();
        for (pool, stock) in &mut self.pools {
            let there = stock.supply();
            for (count, value) in (0..).zip(stock.values(self.now)) {
                let value = if count < there { value * BEING_THERE } else { value };
                units.push(Unit { pool: *pool, floor: (count < stock.spec.min).then_some(count), value });
            }
            stock.target = 0;
        }
        units.sort_by(|a, b| {
            let floors = a.floor.unwrap_or(u32::MAX).cmp(&b.floor.unwrap_or(u32::MAX));
            floors.then(b.value.total_cmp(&a.value))
        });
        let mut left = self.memory.allowed;
        for unit in units {
            let Some(stock) = self.pools.get_mut(&unit.pool) else { continue };
            if let Some(rest) = left.checked_sub(stock.spec.cost) {
                (left, stock.target) = (rest, stock.target + 1);
            }
        }
    }

    /// After a claim: the pool may desire more, and gets it at once if there is memory; if not, it is soon seen
    /// whether others should make room.
    pub(super) fn raise(&mut self, pool: PoolId) {
        let Some(stock) = self.pools.get_mut(&pool) else { return };
        let desired = stock.desired(self.now, &self.config);
        let (target, cost) = (stock.target, stock.spec.cost.max(1));
        if desired > target {
            let room = self.memory.allowed.saturating_sub(self.planned()) / cost;
            let more = u32::try_from(room).unwrap_or(u32::MAX).min(desired - target);
            self.with(pool, |stock| stock.target += more);
            if more < desired - target {
                self.plan_again = self.plan_again.min(self.planned_at + SOON);
            }
        }
    }

    /// Destroys what is above the pool's target, oldest first.
    pub(super) fn trim(&mut self, pool: PoolId, why: End) {
        while let Some(stock) = self.pools.get(&pool)
            && stock.supply() > stock.wanted()
        {
            match (stock.parked.first().copied(), stock.forking.last().copied()) {
                (Some(oldest), _) => self.destroy(oldest, why),
                (None, Some(youngest)) => self.doom(youngest, why),
                (None, None) => break,
            }
        }
    }

    pub(super) fn pressure(&mut self, available: u64, some: f32, full: f32) {
        let (keep, budget) = (self.config.keep_available, self.config.budget);
        let floors = self.pools.values().map(|stock| stock.spec.cost.saturating_mul(stock.spec.min.into()));
        let floors = if full >= FULL { 0 } else { floors.fold(0, u64::saturating_add) };
        let memory = &mut self.memory;
        if some >= SOME || full >= FULL {
            if self.now >= memory.cut_again {
                memory.allowed = memory.allowed.min((memory.live / 4 * 3).max(floors));
                memory.cut_again = self.now + CUT_AGAIN;
            }
        } else if some < CALM.0 && full < CALM.1 && available / 5 * 4 > keep {
            memory.allowed = memory.allowed.saturating_add(budget / 16 + 1).min(budget);
        }
        let here = memory.live.saturating_add(memory.dying).saturating_add(available);
        memory.allowed = memory.allowed.min(here.saturating_sub(keep));
        self.plan();
    }
}
