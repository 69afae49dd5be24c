//! `update`: other limits for a container that is there already.

use oci_spec::runtime::LinuxResources;

use super::{Container, Status};
use crate::Result;
use crate::isolate::cgroup::Placement;
use crate::observe::log;
use crate::store::record::Record;

/// What `resources` leaves out stays as it is.
pub fn update(container: &mut Container, mut resources: LinuxResources) -> Result<()> {
    container.lock()?;
    if container.status()? == Status::Stopped {
        return Err(container.refuse("container not running"));
    }
    let mut record = container.record()?.clone();
    complete_swap(&record.cgroups, &mut resources)?;
    let wanted = record.cgroups.joining(&resources);
    if wanted != record.cgroups {
        container.dir.write(&Record { cgroups: wanted, ..record.clone() })?;
    }
    let updated = record.cgroups.update(&resources);
    // Also after a failure: a group that was joined on the way stays joined, one that was not is taken back.
    let stored = container.dir.write(&record);
    updated?.iter().for_each(|note| log::warn(note));
    stored
}

/// Swap is told as memory and swap together, but v2 counts it alone: without a limit for memory beside it, the
/// present one is meant.
fn complete_swap(cgroups: &Placement, resources: &mut LinuxResources) -> Result<()> {
    let Some(memory) = resources.memory() else { return Ok(()) };
    if memory.swap().is_none_or(|swap| swap <= 0) || memory.limit().is_some_and(|limit| limit != 0) {
        return Ok(());
    }
    let present = cgroups.stats()?.memory.usage.limit;
    // No limit at all is the largest number, or one that is nearly that.
    if let Ok(limit) = i64::try_from(present)
        && limit > 0
        && limit < i64::MAX - 0x1_0000
    {
        let mut memory = *memory;
        memory.set_limit(Some(limit));
        resources.set_memory(Some(memory));
    }
    Ok(())
}
