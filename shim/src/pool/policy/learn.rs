//! Bundles that nobody declared a pool for: remembered while they are launched, and given a pool when that happens
//! often. What a learned pool has seen is remembered when it goes.

use super::Policy;
use super::config::{MINUTE, Nanos};
use super::history::{HORIZON, History};
use super::words::{Action, BundleKey, PoolId};

/// Launches, none of them long after the one before, that are worth a pool.
const OFTEN: u32 = 3;
/// The daemon may not have been able to make the pool: it is asked again then.
const ASK_AGAIN: Nanos = 10 * MINUTE;

/// What is remembered of a bundle.
#[derive(Debug)]
pub(super) struct Key {
    history: History,
    launches: u32,
    ask_again: Nanos,
}

impl Policy {
    pub(super) fn observed(&mut self, bundle: BundleKey) {
        if !self.config.learning {
            return;
        }
        let mut key =
            self.keys.remove(&bundle).unwrap_or(Key { history: History::new(), launches: 0, ask_again: 0 });
        if key.history.last().is_some_and(|last| self.now - last > HORIZON) {
            key.launches = 0;
        }
        key.launches = key.launches.saturating_add(1);
        key.history.launched(self.now, true);
        if key.launches >= OFTEN && self.now >= key.ask_again {
            if self.learned().count() < self.config.max_learned_pools as usize {
                key.ask_again = self.now + ASK_AGAIN;
                self.actions.push(Action::Learn { bundle });
            } else {
                self.make_room();
            }
        }
        self.remember(bundle, key);
    }

    /// The history of a bundle whose pool was declared.
    pub(super) fn recall(&mut self, bundle: BundleKey) -> Option<History> {
        self.keys.remove(&bundle).map(|key| key.history)
    }

    /// The history of a bundle whose pool was deleted.
    pub(super) fn keep(&mut self, bundle: BundleKey, history: History) {
        self.remember(bundle, Key { history, launches: OFTEN, ask_again: 0 });
    }

    fn remember(&mut self, bundle: BundleKey, key: Key) {
        self.keys.insert(bundle, key);
        if self.keys.len() > self.config.max_learned_keys as usize {
            let oldest =
                self.keys.iter().min_by_key(|(_, key)| key.history.last()).map(|(bundle, _)| *bundle);
            oldest.map(|bundle| self.keys.remove(&bundle));
        }
    }

    /// Learned pools, and when each was used last.
    fn learned(&self) -> impl Iterator<Item = (Nanos, PoolId)> {
        let learned = self.pools.iter().filter(|(_, stock)| stock.spec.learned.is_some());
        learned.map(|(pool, stock)| (stock.history.last().unwrap_or(stock.since), *pool))
    }

    fn make_room(&mut self) {
        if let Some((last, pool)) = self.learned().min()
            && self.now - last > self.config.keep_alive
        {
            self.forget(pool);
        }
    }

    /// Gives up learned pools that were not used for so long that nothing is known of their next use.
    pub(super) fn forget_unused(&mut self) {
        let unused = self.learned().filter(|(last, _)| self.now - last > HORIZON);
        for pool in unused.map(|(_, pool)| pool).collect::<Vec<_>>() {
            self.forget(pool);
        }
    }

    fn forget(&mut self, pool: PoolId) {
        if self.pools.get(&pool).is_some_and(|stock| !stock.draining) {
            self.drain(pool);
            self.actions.push(Action::Forget { pool });
        }
    }
}
