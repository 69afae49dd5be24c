//! The policy's settings. The daemon's configuration has validated them.

/// A point or span of monotonic time.
pub type Nanos = u64;

pub const MILLISECOND: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000 * MILLISECOND;
pub const MINUTE: Nanos = 60 * SECOND;
pub const HOUR: Nanos = 60 * MINUTE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Bytes that all parked sandboxes may cost, those being made and those being destroyed included.
    pub budget: u64,
    /// Sandboxes of any state, granted ones included: what the limit of descriptors allows.
    pub max_sandboxes: u32,
    /// Bytes that stay available to the machine: below, sandboxes are evicted.
    pub keep_available: u64,
    /// Forks at a time.
    pub max_forks: u32,
    /// Refill that is not urgent stands back so long at most for launches under way.
    pub stand_back: Nanos,
    /// A claim waits so long at most for a sandbox that is just being made; then it is launched cold.
    pub wait: Nanos,
    /// A claim for `only` the pool waits so long at most; then it is refused.
    pub wait_only: Nanos,
    /// Claims that may wait for one pool.
    pub max_waiting: u32,
    /// Claims of one caller that may wait, over all pools.
    pub max_waiting_per_caller: u32,
    /// Sandboxes that one caller may hold.
    pub max_leases_per_caller: u32,
    /// Keep sandboxes above a pool's floor by what its launches were like, and ask for pools of bundles that are
    /// launched often.
    pub learning: bool,
    /// Undeclared bundles that are remembered, and pools that are asked for: the least recent ones go first.
    pub max_learned_keys: u32,
    pub max_learned_pools: u32,
    /// How long a sandbox is kept after a launch while the launches have no known pattern.
    pub keep_alive: Nanos,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            budget: 256 << 20,
            max_sandboxes: 2_000,
            keep_available: 256 << 20,
            max_forks: 4,
            stand_back: 5 * MILLISECOND,
            wait: 3 * MILLISECOND,
            wait_only: SECOND,
            max_waiting: 256,
            max_waiting_per_caller: 64,
            max_leases_per_caller: 2_000,
            learning: true,
            max_learned_keys: 256,
            max_learned_pools: 32,
            keep_alive: 10 * MINUTE,
        }
    }
}
