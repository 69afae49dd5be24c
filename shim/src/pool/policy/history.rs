//! What the launches of one bundle were like: when they come, and how many sandboxes they take at once.
//!
//! When: the histogram of idle times of "Serverless in the Wild" (ATC'20). After a launch nothing is kept until the
//! time before which few launches ever came (the 5th percentile), and nothing after the time by which nearly all
//! had come (the 99th). The paper's buckets are minutes; ours are a quarter of a power of two. Where the histogram
//! says nothing (few values, too many beyond four hours, or evenly spread), sandboxes are kept a fixed time.
//!
//! How many: measured, not modelled. A launch draws one from the stock, a finished fork puts one back; the deepest
//! draw of each busy period is what would have had to be there. That is Little's law with its safety factor: the
//! draw is rate times refill time on the average, and the histogram of its peaks says how far above that it goes,
//! whether because arrivals are random, come in bursts, or outrun the forks.

use super::config::{HOUR, Nanos, SECOND};
use super::histogram::Histogram;

/// Idle times are counted in tenths of a second.
const UNIT: Nanos = SECOND / 10;
/// A pause this long ends a busy period.
const QUIET: Nanos = SECOND;
/// A busy period without a pause is counted as several of this length.
const PERIOD: Nanos = 10 * SECOND;
/// Longer idle times are not told apart.
pub(super) const HORIZON: Nanos = 4 * HOUR;
/// Shorter absences are not worth it.
const WORTH_LEAVING: Nanos = 20 * SECOND;
/// So many idle times are a pattern, if they are concentrated by so much.
const FEW: u32 = 4;
const CONCENTRATED: f64 = 2.0;
/// Of the launches, so many percent are to find a sandbox.
const COVERED: u64 = 99;

#[derive(Debug, Clone)]
pub(super) struct History {
    last: Option<Nanos>,
    /// The busy period: its beginning, its launches; launches a second of the one before, if it went straight on.
    began: Nanos,
    launches: u32,
    rate: f64,
    /// Sandboxes missing from the stock, and the most of them in this busy period.
    draw: u32,
    peak: u32,
    idle: Histogram<70>,
    peaks: Histogram<40>,
    /// From `idle`: how long after a launch sandboxes are worth keeping, from and to.
    window: Option<(Nanos, Nanos)>,
    /// From `peaks`.
    usual: u32,
}

impl History {
    pub(super) const fn new() -> Self {
        Self {
            last: None,
            began: 0,
            launches: 0,
            rate: 0.0,
            draw: 0,
            peak: 0,
            idle: Histogram::new(),
            peaks: Histogram::new(),
            window: None,
            usual: 0,
        }
    }

    pub(super) fn last(&self) -> Option<Nanos> {
        self.last
    }

    pub(super) fn launched(&mut self, now: Nanos) {
        let idle = self.last.map_or(0, |last| now - last);
        if idle >= QUIET {
            self.end_period(0.0);
            (self.began, self.draw, self.peak) = (now, 0, 0);
            self.idle.add(idle / UNIT);
            self.window = self.pattern();
        } else if self.last.is_none() {
            self.began = now;
        } else if now - self.began >= PERIOD {
            self.end_period(self.rate_since_it_began(now));
            (self.began, self.peak) = (now, self.draw);
        }
        self.last = Some(now);
        self.launches += 1;
        self.draw += 1;
        self.peak = self.peak.max(self.draw);
    }

    /// A fork has finished; `whole`: nothing is missing from the stock any more.
    pub(super) fn refilled(&mut self, whole: bool) {
        self.draw = if whole { 0 } else { self.draw.saturating_sub(1) };
    }

    fn end_period(&mut self, rate: f64) {
        self.rate = rate;
        self.launches = 0;
        self.peaks.add(u64::from(self.peak));
        self.usual = self.covering();
    }

    fn rate_since_it_began(&self, now: Nanos) -> f64 {
        f64::from(self.launches) / seconds((now - self.began).max(SECOND))
    }

    /// The least stock with which the covered share of launches would have found a sandbox.
    fn covering(&self) -> u32 {
        let all: u64 = self.peaks.buckets().map(|(_, peak, count)| peak * u64::from(count)).sum();
        let (mut below, mut at_least) = (0, u64::from(self.peaks.len() - self.peaks.beyond()));
        for (_, peak, count) in self.peaks.buckets() {
            if (below + peak * at_least) * 100 >= all * COVERED {
                return u32::try_from(peak).unwrap_or(u32::MAX);
            }
            below += peak * u64::from(count);
            at_least -= u64::from(count);
        }
        0
    }

    fn pattern(&self) -> Option<(Nanos, Nanos)> {
        let beyond = self.idle.beyond();
        let known = self.idle.len() - beyond;
        if known < FEW || beyond > known || self.idle.concentration() < CONCENTRATED {
            return None;
        }
        let from = self.idle.percentile(5)?.0 * UNIT / 10 * 9;
        let to = (self.idle.percentile(99)?.1 + 1) * UNIT / 10 * 11;
        Some((if from < WORTH_LEAVING { 0 } else { from }, to))
    }

    /// How many sandboxes are worth keeping now.
    pub(super) fn worth_keeping(&self, now: Nanos, keep_alive: Nanos) -> u32 {
        let (from, to) = self.window.unwrap_or((0, keep_alive));
        match self.last {
            Some(last) if (from..=to).contains(&(now - last)) => self.usual.max(self.peak),
            _ => 0,
        }
    }

    /// Launches a second that are to be expected while sandboxes are kept from now on.
    pub(super) fn intensity(&self, now: Nanos, keep_alive: Nanos) -> f64 {
        let Some(last) = self.last else { return 0.0 };
        let elapsed = now - last;
        if elapsed < QUIET {
            return self.rate.max(self.rate_since_it_began(now));
        }
        let Some((_, to)) = self.window else { return 1.0 / seconds(elapsed + keep_alive) };
        // Of the past idle times that lasted this long: how many ended in time, and what keeping costs until then.
        let (mut hits, mut kept) = (0.0, seconds(to.saturating_sub(elapsed).max(UNIT)));
        for (low, high, count) in self.idle.buckets() {
            let end = (low + high).div_ceil(2) * UNIT;
            if end > elapsed && end <= to {
                hits += f64::from(count);
                kept += f64::from(count) * seconds(end - elapsed);
            }
        }
        hits / kept
    }

    /// The share of busy periods, the last one included, that took as many sandboxes as this.
    pub(super) fn share(&self, count: u32) -> f64 {
        let buckets = self.peaks.buckets().filter(|(_, peak, _)| *peak >= u64::from(count));
        let before: u32 = buckets.map(|(_, _, count)| count).sum();
        let as_many = before + self.peaks.beyond() + u32::from(self.peak >= count);
        f64::from(as_many) / f64::from(self.peaks.len() + 1)
    }
}

fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / SECOND as f64
}
