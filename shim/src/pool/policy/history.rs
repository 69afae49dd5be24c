//! What the launches of one bundle were like: when they come, and how many sandboxes they take at once.
//!
//! When: the histogram of idle times of "Serverless in the Wild" (ATC'20). After a launch nothing is kept until the
//! time before which few launches ever came (the 5th percentile), and nothing after the time by which nearly all
//! had come (the 99th). The paper's buckets are minutes; ours are a quarter of a power of two. Where the histogram
//! says nothing (few values, too many beyond four hours, or evenly spread), sandboxes are kept a fixed time.
//!
//! How many: measured, not modelled. A launch draws one from the stock, a finished fork puts one back; how deep the
//! stock is drawn at a launch is the least stock that would have served it. So the histogram of depths is the curve
//! of hit rate against stock, and its 99th percentile is Little's law with its safety factor: rate times refill time
//! on the average, and as much more as arrivals are random, come in bursts, or outrun the forks.

use super::config::{HOUR, MILLISECOND, Nanos, SECOND};
use super::histogram::Histogram;

/// Idle times are counted in tenths of a second.
const UNIT: Nanos = SECOND / 10;
/// A pause this long is an idle time, and what was missing from the stock is forgotten.
const QUIET: Nanos = SECOND;
/// About what a fork takes: where nothing is kept, launches that are so far apart would each find the stock whole.
const REFILL: Nanos = 10 * MILLISECOND;
/// The deepest draw of so long a time is provided for at once.
const PERIOD: Nanos = 10 * SECOND;
/// Launches count for the rate while they are about so old.
const RECENT: Nanos = HOUR;
/// Longer idle times are not told apart.
pub(super) const HORIZON: Nanos = 4 * HOUR;
/// Shorter absences are not worth it.
const WORTH_LEAVING: Nanos = 20 * SECOND;
/// So many idle times are a pattern, if they are concentrated by so much.
const FEW: u32 = 4;
const CONCENTRATED: f64 = 2.0;

#[derive(Debug, Clone)]
pub(super) struct History {
    last: Option<Nanos>,
    /// Launches, the older the less; how many of them followed soon upon another, and after how many seconds in all.
    recent: f64,
    followers: f64,
    gaps: f64,
    /// Sandboxes missing from the stock, and the most of them since then.
    draw: u32,
    peak: u32,
    since: Nanos,
    idle: Histogram<70>,
    depths: Histogram<40>,
    /// From `idle`: how long after a launch sandboxes are worth keeping, from and to.
    window: Option<(Nanos, Nanos)>,
}

impl History {
    pub(super) const fn new() -> Self {
        Self {
            last: None,
            recent: 0.0,
            followers: 0.0,
            gaps: 0.0,
            draw: 0,
            peak: 0,
            since: 0,
            idle: Histogram::new(),
            depths: Histogram::new(),
            window: None,
        }
    }

    pub(super) fn last(&self) -> Option<Nanos> {
        self.last
    }

    /// `whole`: nothing is missing from the stock, or nothing is kept.
    pub(super) fn launched(&mut self, now: Nanos, whole: bool) {
        let idle = self.last.map_or(0, |last| now - last);
        if idle >= QUIET {
            (self.since, self.draw, self.peak) = (now, 0, 0);
            self.idle.add(idle / UNIT);
            self.window = self.pattern();
        } else if now - self.since >= PERIOD {
            (self.since, self.peak) = (now, self.draw);
        }
        if whole && idle >= REFILL {
            self.draw = 0;
        }
        let fading = fading(idle);
        self.recent = self.recent * fading + 1.0;
        let follows = self.last.is_some() && idle < QUIET;
        self.followers = self.followers * fading + f64::from(u8::from(follows));
        self.gaps = self.gaps * fading + if follows { seconds(idle) } else { 0.0 };
        self.last = Some(now);
        self.draw += 1;
        self.peak = self.peak.max(self.draw);
        self.depths.add(self.draw.into());
    }

    /// A fork has finished; `whole`: nothing is missing from the stock any more.
    pub(super) fn refilled(&mut self, whole: bool) {
        self.draw = if whole { 0 } else { self.draw.saturating_sub(1) };
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
            Some(last) if (from..=to).contains(&(now - last)) => {
                let usual = self.depths.percentile(99).map_or(0, |(_, depth)| depth);
                u32::try_from(usual).unwrap_or(u32::MAX).max(self.peak)
            }
            _ => 0,
        }
    }

    /// Launches a second that are to be expected while sandboxes are kept from now on.
    pub(super) fn intensity(&self, now: Nanos) -> f64 {
        let Some(last) = self.last else { return 0.0 };
        let elapsed = now - last;
        if elapsed < QUIET {
            let alone = (self.recent - self.followers) * seconds(QUIET);
            return self.followers / (self.gaps + alone);
        }
        // Of the past idle times that lasted this long, how many ended soon, and what keeping would have cost until
        // then; as if there had been one more that did not.
        let soon = PERIOD.max(elapsed / 4);
        let (mut all, mut hits, mut kept) = (0, 0.0, seconds(soon));
        for (_, high, count) in self.idle.buckets() {
            let rest = ((high + 1) * UNIT).saturating_sub(elapsed);
            if rest > 0 {
                all += count;
                hits += if rest <= soon { f64::from(count) } else { 0.0 };
                kept += f64::from(count) * seconds(rest.min(soon));
            }
        }
        if all == 0 { self.recent * fading(elapsed) / seconds(RECENT) } else { hits / kept }
    }

    /// The share of launches that the last one of a stock of this size serves.
    pub(super) fn share(&self, stock: u32) -> f64 {
        self.depths.density(stock.into())
    }
}

fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / SECOND as f64
}

fn fading(span: Nanos) -> f64 {
    (-seconds(span) / seconds(RECENT)).exp()
}
