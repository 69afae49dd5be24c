//! What daemon and forker say to each other, as packets of the pool's protocol.

use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToForker {
    /// Read a bundle, for the sandboxes of a pool from now on.
    Prepare {
        pool: u32,
        bundle: String,
    },
    Forget {
        pool: u32,
    },
    /// Make a sandbox. Its name is its directory's and its container's.
    Park {
        pool: u32,
        sandbox: u64,
        name: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromForker {
    /// First of all: the children that it has from an earlier life of the daemon.
    Hello {
        children: Vec<Child>,
    },
    /// Descriptors: the claim socket, a pidfd, and the socket that will bring the program's status.
    Parked {
        sandbox: u64,
        pid: i32,
    },
    /// There may be something of it left on disk.
    Failed {
        sandbox: u64,
        message: String,
    },
    Ended(Child),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Child {
    pub(super) sandbox: u64,
    pub(super) name: String,
    pub(super) pid: i32,
    /// As of wait(2), where it has ended.
    pub(super) wait: Option<i32>,
    pub(super) ooms: u64,
}
