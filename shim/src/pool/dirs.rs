//! Where the daemon and its helpers keep what they share: below the directory of all containers, in a directory that
//! no container's name can be.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hearth::pool::client::{LOCK, OWN, PARKED};

#[derive(Debug, Clone)]
pub(super) struct Dirs {
    root: PathBuf,
}

impl Dirs {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// All containers, the leased ones among them.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn own(&self) -> PathBuf {
        self.root.join(OWN)
    }

    /// Parked sandboxes: containers that have no name of their own yet.
    pub(super) fn parked(&self) -> PathBuf {
        self.own().join(PARKED)
    }

    /// A mark for each launch under way, by its container's id.
    pub(super) fn leased(&self) -> PathBuf {
        self.own().join("leased")
    }

    /// What the reaper saw end, a file a pid.
    pub(super) fn exits(&self) -> PathBuf {
        self.own().join("exit")
    }

    pub(super) fn forker(&self) -> PathBuf {
        self.own().join("forker.sock")
    }

    /// Held by the daemon that lives.
    pub(super) fn lock(&self) -> PathBuf {
        self.own().join(LOCK)
    }

    pub(super) fn make(&self) -> io::Result<()> {
        for dir in [self.root.clone(), self.own(), self.parked(), self.leased(), self.exits()] {
            DirBuilder::new().recursive(true).mode(0o711).create(&dir)?;
        }
        // Someone else's umask or an older life may have left more.
        std::fs::set_permissions(self.own(), Permissions::from_mode(0o700))
    }
}
