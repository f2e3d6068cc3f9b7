//! When a service that ended starts again: at once, then twice the pause each time, with jitter.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);
/// A service that lived this long has recovered.
const STABLE: Duration = Duration::from_secs(60);

/// The pauses of one service.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after an end, given how long it had lived. `random` in 0..=255 makes up to a quarter more, so that
    /// services that failed together do not come back together.
    pub(crate) fn pause(&mut self, lived: Duration, random: u8) -> Duration {
        if lived >= STABLE {
            self.failures = 0;
        }
        let failures = self.failures;
        self.failures = failures.saturating_add(1);
        if failures == 0 {
            return Duration::ZERO;
        }
        let pause = FIRST.saturating_mul(2_u32.saturating_pow((failures - 1).min(16))).min(LONGEST);
        pause + pause / 4 * u32::from(random) / 255
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_once_then_doubling_to_a_limit() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        let pauses: Vec<_> = (0..12).map(|_| backoff.pause(short, 0).as_millis()).collect();
        assert_eq!(pauses[..5], [0, 200, 400, 800, 1600]);
        assert_eq!(pauses[11], 30_000);
        assert_eq!(backoff.pause(short, 255).as_millis(), 37_500);
        assert_eq!(backoff.pause(STABLE, 255), Duration::ZERO);
        assert_eq!(backoff.pause(short, 0).as_millis(), 200);
    }
}
