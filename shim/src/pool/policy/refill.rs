//! Who forks next.
//!
//! So many forks at a time, and no more sandboxes than memory and descriptors allow. Pools below their floor, and
//! those for which somebody waits, come first; among equals, who has waited longest. Every eighth fork goes the
//! other way round: a floor that is used up as fast as it is filled starves nobody.
//!
//! While granted sandboxes start their programs, only what launches would miss is forked; the rest stands back, but
//! never for long.

use super::Policy;
use super::config::Nanos;
use super::words::PoolId;

impl Policy {
    pub(super) fn refill(&mut self) {
        self.refill_again = Nanos::MAX;
        while self.forks < self.config.max_forks
            && self.slots.len() < self.config.max_sandboxes as usize
            && let Some(pool) = self.neediest()
        {
            self.fork(pool);
        }
    }

    fn neediest(&mut self) -> Option<PoolId> {
        let calm = self.starting == 0 || self.now >= self.last_grant + self.config.stand_back;
        let reverse = self.turn % 8 == 7;
        let (mut best, mut standing_back) = (None, None);
        for pool in &self.needy {
            let Some(stock) = self.pools.get(pool) else { continue };
            if stock.retry_at > self.now {
                self.refill_again = self.refill_again.min(stock.retry_at);
                continue;
            }
            if self.memory.live + self.memory.dying + stock.spec.cost > self.memory.allowed {
                continue;
            }
            let choice = if calm || stock.is_urgent() { &mut best } else { &mut standing_back };
            let rank = (stock.is_below_floor() == reverse, stock.turn, *pool);
            *choice = Some(choice.map_or(rank, |other| rank.min(other)));
        }
        if standing_back.is_none() {
            self.standing_back_since = None;
        } else {
            let until = *self.standing_back_since.get_or_insert(self.now) + self.config.stand_back;
            if self.now >= until {
                (best, self.standing_back_since) = (standing_back, None);
            } else {
                self.refill_again = self.refill_again.min(until);
            }
        }
        best.map(|(_, _, pool)| pool)
    }

    /// Keeps the set of pools that lack something; to be called whenever what they have or want has changed.
    pub(super) fn note(&mut self, pool: PoolId) {
        match self.pools.get(&pool) {
            Some(stock) if stock.supply() < stock.wanted() => self.needy.insert(pool),
            _ => self.needy.remove(&pool),
        };
    }
}
