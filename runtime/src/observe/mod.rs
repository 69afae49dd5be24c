//! What a launch spends its time on.

pub mod clock;
pub mod host;
pub mod log;
pub mod process;

use rustix::time::{ClockId, clock_gettime};

/// Named points in time. Costs nothing when it is off.
#[derive(Debug, Default)]
pub struct Timeline {
    on: bool,
    marks: Vec<(String, u64)>,
}

impl Timeline {
    pub fn new(on: bool) -> Self {
        Self::starting_at("start", on)
    }

    pub fn starting_at(name: &str, on: bool) -> Self {
        let mut timeline = Self { on, marks: Vec::new() };
        timeline.mark(name);
        timeline
    }

    pub fn is_on(&self) -> bool {
        self.on
    }

    pub fn mark(&mut self, name: &str) {
        if self.on {
            self.marks.push((name.to_owned(), now()));
        }
    }

    pub fn add(&mut self, marks: Vec<(String, u64)>) {
        self.marks.extend(marks);
    }

    /// All marks so far, of however many processes, in the order of time.
    pub fn take(&mut self) -> Vec<(String, u64)> {
        self.marks.sort_by_key(|(_, time)| *time);
        std::mem::take(&mut self.marks)
    }
}

/// Nanoseconds of CLOCK_MONOTONIC, which all processes of one boot share.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
