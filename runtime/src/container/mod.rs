//! The verbs of an OCI runtime on containers that are isolated by namespaces: one file each.

pub mod checkpoint;
pub mod console;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod kill;
pub mod launch;
pub mod notify;
pub mod park;
pub mod restore;
pub mod run;
pub mod start;
pub mod state;
pub mod update;

use std::os::fd::OwnedFd;

use crate::observe;
use crate::store::record::{Process, Record};
use crate::store::{Dir, Root};
use crate::{Error, Result};
pub use state::Status;

/// A container that exists on disk.
#[derive(Debug)]
pub struct Container {
    pub dir: Dir,
    /// None where the creator died before it wrote any.
    pub record: Option<Record>,
}

impl Container {
    pub fn open(root: &Root, id: &str) -> Result<Self> {
        let dir = root.open(id)?;
        let record = dir.read()?;
        Ok(Self { dir, record })
    }

    /// Waits until no other command changes it, and looks again: what was read before may be old.
    pub fn lock(&mut self) -> Result<()> {
        self.dir.lock()?;
        self.record = self.dir.read()?;
        Ok(())
    }

    /// For a verb that needs a finished container.
    pub fn record(&self) -> Result<&Record> {
        self.record.as_ref().ok_or_else(|| Error::NoContainer { id: self.dir.id() })
    }

    /// By its cgroup, or, of a container in none, by the PID namespace that its init heads.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let record = self.record()?;
        if !record.cgroups.is_none() {
            return record.cgroups.processes();
        }
        let init = record.process.filter(Process::is_alive);
        Ok(init.map(|init| observe::process::headed_by(init.pid)).unwrap_or_default())
    }

    pub fn status(&self) -> Result<Status> {
        state::status(self)
    }

    /// The first process, if it still lives.
    pub fn process(&self) -> Option<OwnedFd> {
        self.record.as_ref()?.process?.open()
    }

    /// `refusal`: in runc's words, which engines match on.
    pub fn refuse(&self, refusal: &'static str) -> Error {
        Error::WrongState { refusal: format!("{refusal}: {}", self.dir.id()) }
    }
}
