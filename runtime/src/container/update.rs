//! `update`: other limits for a container that is there already.

use oci_spec::runtime::{LinuxMemory, LinuxResources};

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
    let wanted = record.cgroups.joining(&resources)?;
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
    let Some(memory) = *resources.memory() else { return Ok(()) };
    if needs_limit(&memory) {
        let present = cgroups.stats()?.memory.usage.limit;
        resources.set_memory(Some(with_limit(memory, present)));
    }
    Ok(())
}

fn needs_limit(memory: &LinuxMemory) -> bool {
    memory.swap().is_some_and(|swap| swap > 0) && memory.limit().unwrap_or(0) == 0
}

/// `present`: no limit at all is the largest number, or that of v1, which is a page less than the largest signed one.
fn with_limit(mut memory: LinuxMemory, present: u64) -> LinuxMemory {
    const LARGEST_PAGE: i64 = 0x1_0000;
    let limit = i64::try_from(present).ok().filter(|limit| (1..i64::MAX - LARGEST_PAGE).contains(limit));
    memory.set_limit(limit);
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(limit: Option<i64>, swap: Option<i64>) -> LinuxMemory {
        let mut memory = LinuxMemory::default();
        memory.set_limit(limit);
        memory.set_swap(swap);
        memory
    }

    #[test]
    fn swap_alone_is_told_with_the_present_limit() {
        for (limit, swap, needs) in [
            (None, Some(5), true),
            (Some(0), Some(5), true),
            (Some(3), Some(5), false),
            (Some(-1), Some(5), false),
            (None, Some(-1), false),
            (None, Some(0), false),
            (None, None, false),
        ] {
            assert_eq!(needs_limit(&memory(limit, swap)), needs, "{limit:?} {swap:?}");
        }
        assert_eq!(with_limit(memory(None, Some(5)), 3), memory(Some(3), Some(5)));
    }

    #[test]
    fn no_limit_stays_none() {
        for present in [0, u64::MAX, 9_223_372_036_854_771_712] {
            assert_eq!(with_limit(memory(None, Some(5)), present).limit(), None, "{present}");
        }
    }
}
