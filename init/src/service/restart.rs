//! When a service that ended starts again: at once, then twice the pause each time, with jitter; after too many ends
//! in an interval rarely.
//!
//! All times are of the clock that counts from the machine's start (`CLOCK_BOOTTIME`): nobody sets that one, and the
//! next supervisor goes on counting with it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::declaration::Restart;

/// Seconds since the machine started.
pub(crate) fn uptime() -> u64 {
    u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or(0)
}

/// The ends of one service that still count.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ends {
    /// Ends in a row, without a stable time between them.
    row: u32,
    /// When the last ones were, in seconds since the machine started.
    at: Vec<u64>,
}

/// What follows from an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The pause before the next start.
    pub pause: Duration,
    /// How many ends in a row this one makes.
    pub row: u32,
    /// Whether it ended too often and counts as failed.
    pub failed: bool,
}

impl Ends {
    /// Counts an end at `now` seconds, after it had lived for some time. `random` makes up to a quarter more of the
    /// pause, so that services that failed together do not come back together.
    pub(crate) fn count(&mut self, policy: &Restart, lived: Duration, now: u64, random: u8) -> Verdict {
        if lived >= policy.stable {
            self.row = 0;
        }
        self.row = self.row.saturating_add(1);
        self.at.retain(|at| now.saturating_sub(*at) < policy.interval.as_secs());
        self.at.push(now);
        // More than the limit tell no more than one more than the limit.
        let surplus = self.at.len().saturating_sub(policy.limit + 1);
        self.at.drain(..surplus);
        let failed = self.at.len() > policy.limit;
        let pause = match self.row {
            _ if failed => policy.slow,
            0 | 1 => Duration::ZERO,
            row => policy.first.saturating_mul(2_u32.saturating_pow((row - 2).min(16))).min(policy.longest),
        };
        Verdict { pause: pause + pause / 4 * u32::from(random) / 255, row: self.row, failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::SERVICES;

    const SHORT: Duration = Duration::from_secs(1);

    fn policy() -> Restart {
        Restart { limit: 100, ..SERVICES[0].restart }
    }

    #[test]
    fn at_once_then_doubling_to_a_longest_pause() {
        let (mut ends, policy) = (Ends::default(), policy());
        let pauses: Vec<_> = (0..12).map(|at| ends.count(&policy, SHORT, at, 0).pause.as_millis()).collect();
        assert_eq!(pauses[..5], [0, 200, 400, 800, 1600]);
        assert_eq!(pauses[11], 10_000);
        assert_eq!(ends.count(&policy, SHORT, 12, 255).pause.as_millis(), 12_500);
        assert_eq!(ends.count(&policy, policy.stable, 13, 255).pause, Duration::ZERO);
        assert_eq!(ends.count(&policy, SHORT, 14, 0).pause.as_millis(), 200);
    }

    #[test]
    fn too_many_in_an_interval_and_it_is_tried_rarely() {
        let policy = Restart { limit: 3, interval: Duration::from_secs(60), ..policy() };
        let mut ends = Ends::default();
        let mut failed = |at| ends.count(&policy, SHORT, at, 0).failed;
        assert_eq!([failed(0), failed(10), failed(20), failed(30)], [false, false, false, true]);
        // The first two are out of the interval.
        assert!(!failed(75));
        assert!(failed(76));
        assert_eq!(ends.count(&policy, SHORT, 77, 0).pause, policy.slow);
        assert!(ends.at.len() <= 4, "{ends:?}");
    }
}
