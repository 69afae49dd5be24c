//! Taking a container's groups away.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::placement::{Group, Placement};
use super::systemd::Unit;
use super::{processes, tree};
use crate::{Error, Result};

/// Killed processes usually leave within milliseconds; one in an uninterruptible sleep may never.
const TIMEOUT: Duration = Duration::from_secs(5);

impl Placement {
    /// Removes the groups, those that the container made inside, and the parents that came with them where they
    /// are empty. Processes that are left are killed. Where all are reaped it is one rmdir a group; where it cannot
    /// be done within five seconds, an error. What is gone already is well.
    pub fn destroy(&self) -> Result<()> {
        let end = Instant::now() + TIMEOUT;
        // The first failure is told, but every group is tried.
        let mut result = Ok(());
        for group in self.groups() {
            let removed = self.remove(group, end);
            if removed.is_ok() {
                group.own_parents().take_while(|parent| rustix::fs::rmdir(parent).is_ok()).for_each(drop);
            }
            result = result.and(removed);
        }
        result.and(self.unit.as_ref().map_or(Ok(()), Unit::stop))
    }

    fn remove(&self, group: &Group, end: Instant) -> Result<()> {
        let dir = group.dir();
        let mut pause = Duration::from_micros(500);
        loop {
            match tree::remove(&dir) {
                Ok(()) => return Ok(()),
                Err(error) if !is_busy(&error) => return Err(Error::path("rmdir", dir)(error)),
                Err(_) if Instant::now() >= end => return Err(stuck(&dir)),
                Err(_) => {}
            }
            // The tracker first: in v1 only the freezer's group can let go of what is frozen.
            self.kill_all(libc::SIGKILL)?;
            processes::kill_group(group)?;
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
}

fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY))
}

fn stuck(dir: &Path) -> Error {
    let state = match tree::processes(dir).map(|pids| pids.len()) {
        Ok(count) if count > 0 => format!("cannot be removed: {count} process(es) in it do not die"),
        _ => format!("cannot be removed: the kernel has held it busy for {TIMEOUT:?}"),
    };
    Error::Cgroup { path: dir.to_owned(), state }
}
