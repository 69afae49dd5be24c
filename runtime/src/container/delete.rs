//! `delete`: nothing of a container is left afterwards.

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Signal, pidfd_send_signal};

use super::{Container, Status};
use crate::bundle::load;
use crate::bundle::plan;
use crate::isolate::hooks;
use crate::isolate::intel_rdt::Groups;
use crate::pool::client::{LOCK, OWN, PARKED};
use crate::store::Root;
use crate::{Error, Result};

/// How long a killed process may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn delete(container: &mut Container, force: bool) -> Result<()> {
    container.lock()?;
    let status = container.status()?;
    match status {
        Status::Stopped => {}
        // One that was never started has nobody to ask.
        Status::Created => kill(container)?,
        Status::Creating | Status::Running | Status::Paused if force => kill(container)?,
        Status::Creating | Status::Running | Status::Paused => {
            let refusal =
                format!("cannot delete container {} that is not stopped: {status}", container.dir.id());
            return Err(Error::WrongState { refusal });
        }
    }
    destroy(container)
}

/// Cleans what creators that died have left; containers that were created stay, whether they run or not.
pub fn clean(root: &Root) -> Result<usize> {
    let mut cleaned = root.remove_drafts()?;
    for id in root.list()? {
        let mut container = match Container::open(root, &id) {
            Err(Error::NoContainer { .. }) => continue,
            container => container?,
        };
        let unfinished =
            |container: &Container| container.record.as_ref().is_none_or(|record| record.process.is_none());
        if !unfinished(&container) || container.dir.is_busy()? {
            continue;
        }
        container.lock()?;
        if unfinished(&container) {
            destroy(&container)?;
            cleaned += 1;
        }
    }
    Ok(cleaned)
}

/// Takes away what a daemon that died has left parked, where no other one lives.
pub fn clean_parked(root: &Root) -> Result<usize> {
    let own = root.path().join(OWN);
    let Ok(lock) = File::open(own.join(LOCK)) else { return Ok(0) };
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(0);
    }
    let parked = Root::new(&own.join(PARKED))?;
    let ids = parked.list()?;
    for id in &ids {
        match Container::open(&parked, id) {
            Err(Error::NoContainer { .. }) => {}
            container => container.and_then(|container| destroy(&container))?,
        }
    }
    Ok(ids.len() + parked.remove_drafts()?)
}

fn kill(container: &Container) -> Result<()> {
    let Some(process) = container.process() else { return Ok(()) };
    if let Some(record) = &container.record {
        // A frozen process does not die on v1.
        let _ = record.cgroups.thaw();
    }
    pidfd_send_signal(&process, Signal::KILL).map_err(Error::sys("kill init"))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| Error::InitGone)?;
        // Readable when it is a zombie: reaping is its parent's business.
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => {
                let slow = std::io::Error::new(std::io::ErrorKind::TimedOut, "the killed init does not end");
                return Err(Error::Sys { call: "wait for init", source: slow });
            }
            result => return result.map(drop).map_err(Error::sys("poll")),
        }
    }
}

/// Takes away all that a container without a living init still has: stray processes, cgroups, files. Repeatable:
/// the record goes last.
pub fn destroy(container: &Container) -> Result<()> {
    if let Some(record) = &container.record {
        record.cgroups.destroy()?;
        record.intel_rdt.as_ref().map_or(Ok(()), Groups::destroy)?;
    }
    let poststop = poststop(container);
    container.dir.remove()?;
    if let (Some(hooks), Some(record)) = (poststop, &container.record) {
        let bundle = record.bundle.display().to_string();
        let state = hooks::State::new(&record.id, "stopped", 0, &bundle, record.annotations.iter());
        // The spec has their failures logged; the container is gone either way.
        for hook in hooks {
            if let Err(error) = hooks::run("poststop", &[hook], &state, None) {
                crate::observe::log::warn(&error.chain());
            }
        }
    }
    Ok(())
}

/// Only a container that was created has hooks to run at its end.
fn poststop(container: &Container) -> Option<Vec<plan::Hook>> {
    let record = container.record.as_ref()?;
    record.process.filter(|_| record.poststop)?;
    let text = container.dir.read_config().ok()?;
    let (spec, _) = load::parse::<crate::bundle::spec::Spec>(&text, "config.json").ok()?;
    Some(plan::runtime_hooks(&spec).ok()?.poststop)
}
