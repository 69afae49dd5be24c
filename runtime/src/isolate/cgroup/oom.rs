//! Out-of-memory events of a container.

use super::files;
use super::placement::Placement;
use crate::Result;

impl Placement {
    /// How many processes the OOM killer has taken from the container; 0 where memory is not controlled.
    pub fn oom_count(&self) -> Result<u64> {
        let Some((group, file)) = self.memory_events() else { return Ok(0) };
        let text = files::read_if_there(&group.dir(), file)?;
        Ok(text.and_then(|text| files::value_of(&text, "oom_kill")).unwrap_or(0))
    }

    fn memory_events(&self) -> Option<(&super::placement::Group, &'static str)> {
        let v1 = self.joined("memory").map(|group| (group, "memory.oom_control"));
        v1.or_else(|| self.v2.as_ref().map(|group| (group, "memory.events")))
    }
}
