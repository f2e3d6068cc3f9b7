//! How long to wait before a function is started again.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

/// After failed pulls: each may be a whole download, and is paid for.
const FIRST_PULL: Duration = Duration::from_secs(1);
const LONGEST_PULL: Duration = Duration::from_secs(900);

/// An instance that ran this long before it ended had not failed to start.
const STEADY: Duration = Duration::from_secs(10);

/// Counts starts that came to nothing.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// An instance was up since then, and ended. The first end is followed by a start at once.
    pub fn ended(&mut self, since: Instant) -> Duration {
        if since.elapsed() >= STEADY {
            self.failures = 0;
        }
        self.failures += 1;
        if self.failures == 1 { Duration::ZERO } else { self.delay() }
    }

    /// A start failed.
    pub fn failed(&mut self) -> Duration {
        self.failures += 1;
        self.delay()
    }

    /// A start failed because its image could not be had; `lasting` is whether it will be the same in a moment.
    pub fn without_image(&mut self, lasting: bool) -> Duration {
        self.failures += 1;
        if lasting { LONGEST_PULL.mul_f64(jitter()) } else { self.doubled(FIRST_PULL, LONGEST_PULL) }
    }

    /// Somebody changed the function: what was counted is about another one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    fn delay(&self) -> Duration {
        self.doubled(FIRST, LONGEST)
    }

    fn doubled(&self, first: Duration, longest: Duration) -> Duration {
        let doubled = first * 2_u32.saturating_pow(self.failures.saturating_sub(1).min(10));
        doubled.min(longest).mul_f64(jitter())
    }
}

/// Between 0.75 and 1.25, so that functions which died together do not come back together.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    0.75 + (RandomState::new().hash_one(0) % 1024) as f64 / 2048.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_limit_and_forgets() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.ended(Instant::now()), Duration::ZERO);
        let second = backoff.ended(Instant::now());
        assert!(second >= Duration::from_millis(375) && second <= Duration::from_millis(625), "{second:?}");
        for _ in 0..40 {
            backoff.failed();
        }
        assert!(backoff.failed() <= Duration::from_millis(37_500));
        if let Some(long_ago) = Instant::now().checked_sub(STEADY) {
            assert_eq!(backoff.ended(long_ago), Duration::ZERO);
        }
        backoff.reset();
        assert_eq!(backoff.ended(Instant::now()), Duration::ZERO);
    }

    #[test]
    fn pulls_are_tried_again_seldom() {
        let mut backoff = Backoff::default();
        let first = backoff.without_image(false);
        assert!(first >= FIRST_PULL.mul_f64(0.75) && first <= FIRST_PULL.mul_f64(1.25), "{first:?}");
        for _ in 0..40 {
            backoff.without_image(false);
        }
        assert!(backoff.without_image(false) >= LONGEST_PULL.mul_f64(0.75));
        backoff.reset();
        assert!(backoff.without_image(false) <= FIRST_PULL.mul_f64(1.25));
        assert!(backoff.without_image(true) >= LONGEST_PULL.mul_f64(0.75));
    }
}
