//! Counts of values, in buckets a quarter of a power of two wide (below 8 exact), that forget slowly.

/// When this many values are in, all counts are halved: what a pool's launches were like long ago fades.
const FULL: u32 = 2_048;

#[derive(Debug, Clone)]
pub(super) struct Histogram<const BUCKETS: usize> {
    counts: [u32; BUCKETS],
    /// Sum of `counts`.
    total: u32,
    /// Values too large for the last bucket.
    beyond: u32,
}

impl<const BUCKETS: usize> Histogram<BUCKETS> {
    pub(super) const fn new() -> Self {
        Self { counts: [0; BUCKETS], total: 0, beyond: 0 }
    }

    pub(super) fn add(&mut self, value: u64) {
        match self.counts.get_mut(bucket(value)) {
            Some(count) => {
                *count += 1;
                self.total += 1;
            }
            None => self.beyond += 1,
        }
        if self.total + self.beyond >= FULL {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
            self.beyond /= 2;
        }
    }

    /// Values counted, those beyond included.
    pub(super) fn len(&self) -> u32 {
        self.total + self.beyond
    }

    pub(super) fn beyond(&self) -> u32 {
        self.beyond
    }

    /// The buckets that hold anything: least and greatest value, and count.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u64, u64, u32)> {
        let held = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        held.map(|(at, count)| (least(at), least(at + 1) - 1, *count))
    }

    /// Bounds of the bucket below which `percent` of the counted values lie.
    pub(super) fn percentile(&self, percent: u32) -> Option<(u64, u64)> {
        let mut wanted = (u64::from(self.total) * u64::from(percent)).div_ceil(100).max(1);
        for (low, high, count) in self.buckets() {
            match wanted.checked_sub(u64::from(count)) {
                None | Some(0) => return Some((low, high)),
                Some(rest) => wanted = rest,
            }
        }
        None
    }

    /// The share of all values that have this value, as far as the buckets tell.
    pub(super) fn density(&self, value: u64) -> f64 {
        let at = bucket(value);
        let count = self.counts.get(at).copied().unwrap_or(0);
        f64::from(count) / (least(at + 1) - least(at)) as f64 / f64::from(self.len().max(1))
    }

    /// Standard deviation of the buckets' counts over their mean: high where the values have a pattern.
    pub(super) fn concentration(&self) -> f64 {
        let buckets = BUCKETS as f64;
        let mean = f64::from(self.total) / buckets;
        let squares: f64 = self.counts.iter().map(|count| (f64::from(*count) - mean).powi(2)).sum();
        if mean > 0.0 { (squares / buckets).sqrt() / mean } else { 0.0 }
    }
}

fn bucket(value: u64) -> usize {
    let octave = value.max(1).ilog2();
    let at = if octave < 2 { value } else { u64::from(octave - 1) * 4 + ((value >> (octave - 2)) & 3) };
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn least(bucket: usize) -> u64 {
    let (octave, quarter) = (bucket / 4, (bucket % 4) as u64);
    if octave == 0 { quarter } else { (4 + quarter) << (octave - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_within_its_bucket() {
        for value in (0..5_000).chain([1 << 20, (1 << 40) + 12_345]) {
            let at = bucket(value);
            assert!(least(at) <= value && value < least(at + 1), "{value} is not in bucket {at}");
            assert!(value < 8 || (least(at + 1) - least(at)) * 4 <= value, "{value}: the bucket is too wide");
        }
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut histogram = Histogram::<40>::new();
        (1..=100).for_each(|value| histogram.add(value));
        assert_eq!(histogram.percentile(5), Some((5, 5)));
        let (low, high) = histogram.percentile(99).unwrap();
        assert!(low <= 99 && 99 <= high);
        assert_eq!(Histogram::<40>::new().percentile(99), None);
    }

    #[test]
    fn old_values_fade() {
        let mut histogram = Histogram::<40>::new();
        (0..2_000).for_each(|_| histogram.add(3));
        (0..30_000).for_each(|_| histogram.add(20));
        assert_eq!(histogram.percentile(1), histogram.percentile(99));
        assert!(histogram.len() < FULL);
    }

    #[test]
    fn large_values_are_counted_apart() {
        let mut histogram = Histogram::<8>::new();
        histogram.add(7);
        histogram.add(8);
        assert_eq!((histogram.len(), histogram.beyond()), (2, 1));
    }
}
