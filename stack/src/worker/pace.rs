//! How many calls are held ahead of those that run: enough that nobody waits for NATS, and no more than are soon begun.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Time for which calls are held ahead.
const AHEAD: Duration = Duration::from_millis(20);
/// The most that are held.
const MOST: usize = 512;
/// Weight of the calls before, against the last one.
const MEMORY: u64 = 15;

/// How long a function's calls take.
#[derive(Debug, Default)]
pub struct Pace {
    /// Microseconds on average; 0 while nothing is known.
    average: AtomicU64,
}

impl Pace {
    /// A call took so long.
    pub fn note(&self, taken: Duration) {
        let taken = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX).max(1);
        // Two notes at a time may lose one of them, which is no harm.
        let before = self.average.load(Ordering::Relaxed);
        let average = if before == 0 {
            taken
        } else {
            (before.saturating_mul(MEMORY)).saturating_add(taken) / (MEMORY + 1)
        };
        self.average.store(average.max(1), Ordering::Relaxed);
    }

    /// How many calls should be at hand where so many run at a time.
    pub fn ahead(&self, running: u32) -> usize {
        let running = u64::from(running.max(1));
        let average = self.average.load(Ordering::Relaxed);
        if average == 0 {
            return 1;
        }
        let in_time = running.saturating_mul(AHEAD.as_micros() as u64) / average;
        usize::try_from(in_time).unwrap_or(MOST).clamp(1, MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_calls_are_held_ahead_and_long_ones_are_not() {
        let pace = Pace::default();
        assert_eq!(pace.ahead(48), 1);
        pace.note(Duration::from_millis(2));
        assert_eq!((pace.ahead(48), pace.ahead(1), pace.ahead(1000)), (480, 10, MOST));
        for _ in 0..200 {
            pace.note(Duration::from_secs(10));
        }
        assert_eq!(pace.ahead(48), 1);
        pace.note(Duration::ZERO);
        pace.note(Duration::MAX);
        assert_eq!(pace.ahead(0), 1);
    }
}
