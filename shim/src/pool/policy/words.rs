//! What goes into the policy and what comes out: identifiers, events, actions.

use super::config::Nanos;

/// A pool, named by the daemon.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolId(pub u32);

/// A sandbox, named by the policy when it asks for a fork; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SandboxId(pub u64);

/// One claim, named by the daemon; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Who claims: the uid of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caller(pub u32);

/// What a sandbox was made from: the bundle and the policy that it will enforce. Another value, another sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// A bundle that no pool was declared for, as a digest of whatever identifies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BundleKey(pub u128);

/// A pool as its owner wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// So many are parked whenever nothing opposes it.
    pub min: u32,
    /// Parked ones and those being made are never more. At least `min`.
    pub max: u32,
    /// What one sandbox is expected to cost, in bytes; the real costs are learned from [`Event::Ready`].
    pub cost: u64,
    pub generation: Generation,
    /// The bundle, where the policy asked for this pool by [`Action::Learn`].
    pub learned: Option<BundleKey>,
}

/// What happened.
///
/// The daemon owes an answer to each action: to `Fork` one `Ready` or one `ForkFailed`, to `Destroy` one
/// `Destroyed`, to `Grant` one `Released`. An event about something that the policy does not know is passed over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// A new pool; or a new shape for one that is there, whose sandboxes of another generation are then destroyed.
    /// Ends a drain.
    PoolDeclared {
        pool: PoolId,
        spec: Pool,
    },
    PoolResized {
        pool: PoolId,
        min: u32,
        max: u32,
    },
    /// Empty it and keep it empty, until it is declared or resized.
    PoolDrained {
        pool: PoolId,
    },
    PoolDeleted {
        pool: PoolId,
    },
    /// The bundle or the policy changed: no sandbox made before is ever granted again.
    GenerationChanged {
        pool: PoolId,
        generation: Generation,
    },

    /// A caller wants a sandbox. Answered by exactly one of `Grant`, `Cold`, `Refuse`, unless it is cancelled.
    /// `only` says that the caller doesn't want a cold launch; it waits longer, and is refused in the end.
    Claim {
        request: RequestId,
        pool: PoolId,
        caller: Caller,
        only: bool,
    },
    /// The caller has gone. If its grant was already given, the daemon says `Released`.
    ClaimCancelled {
        request: RequestId,
    },
    /// The granted sandbox runs its program: refill need not stand back for this launch any more. Optional.
    Launched {
        sandbox: SandboxId,
    },

    /// A fork is done and parked, and this is what it really costs, in bytes.
    Ready {
        sandbox: SandboxId,
        cost: u64,
    },
    /// A fork came to nothing, and nothing of it is left.
    ForkFailed {
        sandbox: SandboxId,
    },
    /// The process has ended unasked; what is left of the sandbox is destroyed.
    Died {
        sandbox: SandboxId,
    },
    /// A granted sandbox has ended, or its grant could not be delivered. It is destroyed: single use.
    Released {
        sandbox: SandboxId,
    },
    /// Nothing of it is left.
    Destroyed {
        sandbox: SandboxId,
    },

    /// Found parked after a restart of the daemon: kept if a pool wants it, else destroyed.
    FoundParked {
        sandbox: SandboxId,
        pool: PoolId,
        generation: Generation,
        cost: u64,
    },
    /// Found running after a restart of the daemon: counts against its caller until `Released`.
    FoundRunning {
        sandbox: SandboxId,
        caller: Caller,
    },

    /// The machine's memory: bytes available, and /proc/pressure/memory's avg10, in percent. To be sent every
    /// second or so while there are sandboxes.
    Pressure {
        available: u64,
        some: f32,
        full: f32,
    },
    /// A cold launch of a bundle that has no pool.
    Observed {
        bundle: BundleKey,
    },
    /// It is the time that [`Action::WakeAt`] asked for, or later.
    Tick,
}

/// What the daemon is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The request gets this sandbox. The daemon says `Released` when it has ended.
    Grant { request: RequestId, sandbox: SandboxId },
    /// The request is launched cold.
    Cold { request: RequestId, why: Why },
    /// The request is refused, which only happens to a claim that wanted `only` the pool.
    Refuse { request: RequestId, why: Why },
    /// Make one and park it.
    Fork { sandbox: SandboxId, pool: PoolId, generation: Generation },
    /// Take it down, whatever is left of it.
    Destroy { sandbox: SandboxId, why: End },
    /// The bundle is launched often enough: declare a pool for it, with min 0 and `learned` set.
    Learn { bundle: BundleKey },
    /// A learned pool is not worth keeping: delete it.
    Forget { pool: PoolId },
    /// Send a `Tick` then. There is one such time: a later `WakeAt` replaces an earlier one.
    WakeAt { time: Nanos },
}

/// Why a claim got no sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is no such pool.
    NoPool,
    /// The pool is being drained or deleted.
    Draining,
    /// No sandbox is parked, and none is being made that another claim does not wait for.
    Empty,
    /// The sandbox that it waited for was not ready in time.
    Late,
    /// Too many wait already, of this pool or of this caller.
    QueueFull,
    /// The caller holds as many sandboxes as it may.
    CallerLimit,
}

impl Why {
    pub const ALL: [Self; 6] =
        [Self::NoPool, Self::Draining, Self::Empty, Self::Late, Self::QueueFull, Self::CallerLimit];

    /// For machines.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoPool => "no_pool",
            Self::Draining => "draining",
            Self::Empty => "empty",
            Self::Late => "late",
            Self::QueueFull => "queue_full",
            Self::CallerLimit => "caller_limit",
        }
    }

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoPool => "no such pool",
            Self::Draining => "the pool is being drained",
            Self::Empty => "the pool is empty",
            Self::Late => "no sandbox was ready in time",
            Self::QueueFull => "too many launches wait already",
            Self::CallerLimit => "the caller holds as many sandboxes as it may",
        }
    }
}

/// Why a sandbox is destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was granted and has ended.
    Used,
    /// Its process ended while it was parked.
    Died,
    /// It is of an old generation.
    Stale,
    /// Its pool is drained, deleted, or smaller than it was.
    Drained,
    /// It is not expected to be claimed soon.
    Idle,
    /// The memory is needed: for sandboxes of more value, or by the machine.
    Evicted,
}

impl End {
    pub const ALL: [Self; 6] =
        [Self::Used, Self::Died, Self::Stale, Self::Drained, Self::Idle, Self::Evicted];

    /// For machines.
    pub fn label(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Died => "died",
            Self::Stale => "stale",
            Self::Drained => "drained",
            Self::Idle => "idle",
            Self::Evicted => "evicted",
        }
    }
}
