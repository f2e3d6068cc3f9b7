//! From a load to a number of instances: at once when it grows, and slowly when it goes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::desired::{Load, Scale};

/// Pauses after a change of the number, whoever changed it: what was begun is to take load before more is asked for, and
/// each change is a file on the disk.
const BEFORE_MORE: Duration = Duration::from_secs(2);
const BEFORE_LESS: Duration = Duration::from_secs(5);

/// A quotient that is more than a whole number by no more than that is that number.
const GRAIN: f64 = 1e-9;

/// What a look finds.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Instances that should run.
    pub replicas: u64,
    /// Instances that answer.
    pub ready: u64,
    /// Whether somebody asked for that many.
    pub by_hand: bool,
    /// The load of all of them.
    pub load: f64,
}

/// Decides for one function.
#[derive(Debug, Default)]
pub struct Regulator {
    /// How many the load asked for, and when; numbers that others set are among them.
    wishes: VecDeque<(Instant, u64)>,
    /// The number of the last look, and since when it is.
    number: Option<(Instant, u64)>,
}

impl Regulator {
    /// How many instances there should be; those that there are where nothing is to change.
    pub fn wanted(&mut self, now: Instant, scale: Scale, load: Load, seen: Seen) -> u64 {
        let Seen { replicas, ready, by_hand, .. } = seen;
        if replicas == 0 {
            // It rests: what its load was is no measure for what comes.
            *self = Self::default();
            return 0;
        }
        let since = match self.number {
            Some((since, number)) if number == replicas => since,
            _ => {
                self.number = Some((now, replicas));
                self.wishes.push_back((now, replicas));
                now
            }
        };
        self.wishes.retain(|(at, _)| now.saturating_duration_since(*at) < load.window);
        let wish = scale.clamp(needed(seen.load, load));
        self.wishes.push_back((now, wish));
        let held = now.saturating_duration_since(since);
        // Calls that wait for the first instance tell nothing of how many it takes.
        if wish > replicas && ready > 0 && held >= BEFORE_MORE {
            return wish;
        }
        let highest = self.wishes.iter().map(|(_, wish)| *wish).max().unwrap_or(replicas);
        if highest < replicas && !by_hand && held >= BEFORE_LESS {
            return highest;
        }
        replicas
    }

    /// How many the load asked for at the last look; 0 before the first.
    pub fn wish(&self) -> u64 {
        self.wishes.back().map_or(0, |(_, wish)| *wish)
    }
}

/// Instances for a load, at least one.
fn needed(load: f64, of: Load) -> u64 {
    let number = load / (of.target * of.proportion);
    // A conversion ends at the largest number there is.
    ((number - GRAIN).ceil() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Measure;

    const WINDOW: Duration = Duration::from_secs(20);

    fn scale(min: u64, max: u64) -> Scale {
        let label = |name: &str, value: u64| (format!("com.openfaas.scale.{name}"), value.to_string());
        Scale::parse(&[label("min", min), label("max", max)].into()).unwrap()
    }

    fn load(window: Duration) -> Load {
        Load { measure: Measure::Rps, target: 50.0, proportion: 0.9, window }
    }

    #[test]
    fn a_number_for_a_load() {
        for (amount, wanted) in
            [(0.0, 1), (1.0, 1), (45.0, 1), (45.1, 2), (90.0, 2), (135.0, 3), (1e30, u64::MAX)]
        {
            assert_eq!(needed(amount, load(WINDOW)), wanted, "{amount}");
        }
        let fine = Load { target: 0.7, proportion: 0.1, ..load(WINDOW) };
        assert_eq!(needed(0.21, fine), 3);
    }

    /// A function whose instances come at once: looks a second apart, each with its load; gives the number after each.
    fn follow(scale: Scale, load: Load, begin: u64, by_hand: bool, loads: &[f64]) -> Vec<u64> {
        let (mut regulator, start) = (Regulator::default(), Instant::now());
        let (mut replicas, mut by_hand) = (begin, by_hand);
        (0..)
            .zip(loads)
            .map(|(second, amount)| {
                let seen = Seen { replicas, ready: replicas, by_hand, load: *amount };
                let wanted = regulator.wanted(start + Duration::from_secs(second), scale, load, seen);
                by_hand &= wanted == replicas;
                replicas = wanted;
                replicas
            })
            .collect()
    }

    #[test]
    fn it_grows_every_other_look_and_not_above_its_most() {
        let numbers =
            follow(scale(1, 6), load(WINDOW), 1, false, &[100.0, 100.0, 100.0, 200.0, 250.0, 900.0]);
        assert_eq!(numbers, [1, 1, 3, 3, 3, 6]);
    }

    #[test]
    fn it_goes_back_to_what_the_window_asked_for() {
        let mut loads = vec![220.0; 4];
        loads.extend([130.0; 3]);
        loads.extend([0.0; 40]);
        let numbers = follow(scale(1, 20), load(WINDOW), 1, false, &loads);
        // Five were asked for until second 3; three were there, and counted as asked for, at second 24.
        for (second, wanted) in [(1, 1), (2, 5), (22, 5), (23, 3), (43, 3), (44, 1)] {
            assert_eq!(numbers[second], wanted, "{second}: {numbers:?}");
        }
        assert_eq!(numbers.last(), Some(&1), "{numbers:?}");
    }

    #[test]
    fn a_load_that_comes_and_goes_changes_nothing() {
        let loads: Vec<_> = (0..100).map(|second| if second % 15 < 3 { 130.0 } else { 0.0 }).collect();
        let numbers = follow(scale(1, 20), load(WINDOW), 3, false, &loads);
        assert!(numbers.iter().all(|number| *number == 3), "{numbers:?}");
        // Without a window it follows, though not at each look.
        let numbers = follow(scale(1, 20), load(Duration::ZERO), 3, false, &loads);
        let changes = numbers.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!((8..=14).contains(&changes), "{changes}: {numbers:?}");
    }

    #[test]
    fn what_somebody_asked_for_stays_until_more_is_needed() {
        let quiet = vec![0.0; 60];
        assert!(follow(scale(1, 9), load(WINDOW), 4, true, &quiet).iter().all(|number| *number == 4));
        let mut loads = vec![220.0; 5];
        loads.extend(quiet);
        let numbers = follow(scale(1, 9), load(WINDOW), 4, true, &loads);
        assert_eq!((numbers[1], numbers[2], numbers.last()), (4, 5, Some(&1)), "{numbers:?}");
    }

    #[test]
    fn the_next_gateway_takes_nothing_away_before_a_window_is_over() {
        let numbers = follow(scale(1, 9), load(WINDOW), 6, false, &[0.0; 30]);
        assert_eq!((numbers[19], numbers[20], numbers[29]), (6, 1, 1), "{numbers:?}");
    }

    #[test]
    fn who_rests_or_starts_is_left_alone() {
        let (mut regulator, start) = (Regulator::default(), Instant::now());
        let mut at = |second, replicas, ready, amount| {
            let seen = Seen { replicas, ready, by_hand: false, load: amount };
            let now = start + Duration::from_secs(second);
            (regulator.wanted(now, scale(2, 9), load(WINDOW), seen), regulator.wish())
        };
        assert_eq!(at(0, 0, 0, 900.0), (0, 0));
        assert_eq!(at(10, 2, 0, 900.0), (2, 9));
        assert_eq!(at(30, 2, 0, 900.0), (2, 9));
        assert_eq!(at(31, 2, 1, 900.0), (9, 9));
    }
}
