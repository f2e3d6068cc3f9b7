//! Whether a service that is ready works on: it is asked again and again.

use std::time::{Duration, Instant};

use super::declaration::Health;
use super::ledger::Ledger;
use super::probe::Asked;

/// Pause between two questions while it fails.
const EAGER: Duration = Duration::from_millis(100);

/// Asks until it is taken for hung; gives why.
pub(super) async fn watch(health: &Health, asked: &Asked<'_>, ledger: &Ledger) -> String {
    let mut failing = Failing::default();
    loop {
        let begin = Instant::now();
        match asked.ask(health.probe, health.limit).await {
            Ok(()) => {
                failing = Failing::default();
                ledger.problem(None);
                ledger.healthy(true);
                tokio::time::sleep(health.period).await;
            }
            Err(why) => {
                let found = failing.note(health, begin, Instant::now());
                if found.unhealthy {
                    ledger.healthy(false);
                }
                if found.hung {
                    return format!("ran and did not answer ({why})");
                }
                if found.said {
                    ledger.problem(Some(why));
                }
                tokio::time::sleep(EAGER).await;
            }
        }
    }
}

/// Failures in a row.
#[derive(Debug, Default)]
struct Failing {
    since: Option<Instant>,
    count: u32,
}

/// What they mean.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    unhealthy: bool,
    said: bool,
    hung: bool,
}

impl Failing {
    /// Adds one that was asked at `begin` and is known `now`.
    fn note(&mut self, health: &Health, begin: Instant, now: Instant) -> Found {
        self.count = self.count.saturating_add(1);
        let lasts = now.saturating_duration_since(*self.since.get_or_insert(begin));
        Found {
            unhealthy: self.count >= health.failures || lasts >= health.said_after,
            said: lasts >= health.said_after,
            hung: lasts >= health.hung_after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::SERVICES;

    #[test]
    fn a_hung_one_is_said_then_started_again() {
        let health = SERVICES.iter().rfind(|service| service.name == "gateway").unwrap().health.unwrap();
        let mut failing = Failing::default();
        let begin = Instant::now();
        let mut note = |from: u64, to: u64| {
            let found =
                failing.note(&health, begin + Duration::from_secs(from), begin + Duration::from_secs(to));
            (found.unhealthy, found.said, found.hung)
        };
        assert_eq!(note(0, 5), (false, false, false));
        assert_eq!(note(5, 10), (true, true, false));
        assert_eq!(note(24, 29), (true, true, false));
        assert_eq!(note(29, 34), (true, true, true));
        // Quick refusals count by number.
        let mut failing = Failing::default();
        let counts: Vec<_> = (0..4).map(|_| failing.note(&health, begin, begin).unhealthy).collect();
        assert_eq!(counts, [false, false, true, true]);
    }
}
