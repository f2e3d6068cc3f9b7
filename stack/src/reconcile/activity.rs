//! When a function was busy last: each call leaves a mark as it comes and as it goes, for the price of a store.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the marks count from. Not the wall clock, which jumps when the machine learns what time it is.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The last mark, in milliseconds.
#[derive(Debug)]
pub struct Activity(AtomicU64);

impl Default for Activity {
    /// Who was just made counts as busy now: the gateway's start is nobody's last call.
    fn default() -> Self {
        let activity = Self(AtomicU64::new(0));
        activity.mark(Instant::now());
        activity
    }
}

impl Activity {
    /// Something happened. Of two at the same moment either may stay.
    pub fn mark(&self, now: Instant) {
        self.0.store(millis(now), Ordering::Relaxed);
    }

    /// For how long nothing has.
    pub fn quiet(&self, now: Instant) -> Duration {
        Duration::from_millis(millis(now).saturating_sub(self.0.load(Ordering::Relaxed)))
    }
}

fn millis(now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(*BEGIN).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_counts_from_the_last_mark() {
        let began = Instant::now();
        let activity = Activity::default();
        assert!(activity.quiet(began) < Duration::from_secs(1));
        let hour = Duration::from_secs(3600);
        assert!(activity.quiet(began + hour) >= hour - Duration::from_secs(1));
        activity.mark(began + hour);
        assert_eq!(activity.quiet(began + hour), Duration::ZERO);
        assert_eq!(activity.quiet(began + hour * 2).as_secs(), 3600);
        // A moment before the mark is as quiet as the mark.
        assert_eq!(activity.quiet(began), Duration::ZERO);
    }
}
