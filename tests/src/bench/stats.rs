//! Percentiles of samples, which are microseconds.

/// The sample below which `permille` of all lie (nearest rank).
pub fn percentile(samples: &[u32], permille: usize) -> Option<u32> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * permille).div_ceil(1000).max(1);
    sorted.get(rank - 1).copied()
}

pub fn median(samples: &[u32]) -> Option<u32> {
    percentile(samples, 500)
}

pub fn mean(samples: &[u32]) -> Option<f64> {
    let sum: u64 = samples.iter().map(|sample| u64::from(*sample)).sum();
    (!samples.is_empty()).then(|| sum as f64 / samples.len() as f64)
}

pub fn ms(us: u32) -> f64 {
    f64::from(us) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<u32> = (1..=100).rev().collect();
        let at = |permille| percentile(&samples, permille).unwrap();
        assert_eq!((at(0), at(500), at(900), at(990), at(1000)), (1, 50, 90, 99, 100));
        assert_eq!(percentile(&[7], 990), Some(7));
        assert_eq!(percentile(&[], 500), None);
        assert_eq!(mean(&[1, 2]), Some(1.5));
    }
}
