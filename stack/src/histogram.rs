//! How long something took, over and over, in Prometheus's form.

use std::time::Duration;

/// Upper bounds of the buckets in seconds: the default ones of Prometheus's clients.
pub const BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Counts of durations.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// How many.
    pub count: u64,
    /// All together, in seconds.
    pub sum: f64,
    /// How many fell between a bound and the one before it; what is beyond the last is in `count` alone.
    buckets: [u64; BOUNDS.len()],
}

impl Histogram {
    /// Counts one.
    pub fn observe(&mut self, taken: Duration) {
        let seconds = taken.as_secs_f64();
        self.count += 1;
        self.sum += seconds;
        if let Some(bucket) = self.buckets.get_mut(BOUNDS.partition_point(|bound| *bound < seconds)) {
            *bucket += 1;
        }
    }

    /// Each bound, with how many took no longer.
    pub fn cumulated(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut sum = 0;
        BOUNDS.into_iter().zip(self.buckets).map(move |(bound, count)| {
            sum += count;
            (bound, sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_its_definition_says(taken in prop::collection::vec(0u64..20_000_000, 0..50)) {
            let mut histogram = Histogram::default();
            let taken: Vec<_> = taken.into_iter().chain([5_000, 10_000_000]).map(Duration::from_micros).collect();
            taken.iter().for_each(|taken| histogram.observe(*taken));
            prop_assert_eq!(histogram.count, taken.len() as u64);
            let sum: f64 = taken.iter().map(Duration::as_secs_f64).sum();
            prop_assert!((histogram.sum - sum).abs() < 1e-6);
            for (bound, count) in histogram.cumulated() {
                let within = taken.iter().filter(|taken| taken.as_secs_f64() <= bound).count();
                prop_assert_eq!(count, within as u64, "{}", bound);
            }
        }
    }
}
