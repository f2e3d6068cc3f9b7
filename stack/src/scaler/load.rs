//! A function's load: what came of it in the last seconds, by what it is measured in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::desired::Measure;
use crate::reconcile::{Usage, between};

/// Time over which a load is averaged: long enough that a burst of a second is none, short enough that nobody waits.
const CALLS: Duration = Duration::from_secs(10);
const INSIDE: Duration = Duration::from_secs(5);
const PROCESSORS: Duration = Duration::from_secs(10);

/// What a look finds.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Calls that came, ever.
    pub calls: u64,
    /// Calls that are here.
    pub running: u64,
    /// What its instances have used, ever; only where that is measured.
    pub used: Vec<Usage>,
}

/// Makes a load of looks.
#[derive(Debug, Default)]
pub struct Meter {
    last: Option<(Instant, Measure, Figures)>,
    /// What came in a span of time: calls, seconds of calls, or thousandths of seconds of a processor.
    parts: VecDeque<(f64, Duration)>,
}

impl Meter {
    /// The load, from this look and those before; nothing where one look does not tell, or the kernel does not.
    pub fn read(&mut self, now: Instant, measure: Measure, figures: Figures) -> Option<f64> {
        let (then, as_before, before) = self.last.replace((now, measure, figures.clone()))?;
        if as_before != measure {
            self.parts.clear();
            return None;
        }
        let span = now.saturating_duration_since(then);
        if !span.is_zero() {
            let seconds = span.as_secs_f64();
            let (amount, longest) = match measure {
                Measure::Rps => (figures.calls.saturating_sub(before.calls) as f64, CALLS),
                Measure::Capacity => (figures.running as f64 * seconds, INSIDE),
                Measure::Cpu => {
                    let used = between(&before.used, &figures.used, span).cpu_millicores?;
                    (used * seconds, PROCESSORS)
                }
            };
            self.parts.push_back((amount, span));
            self.forget(longest);
        }
        self.mean()
    }

    /// Drops what is older.
    fn forget(&mut self, longest: Duration) {
        let mut all: Duration = self.parts.iter().map(|(_, span)| *span).sum();
        while let Some((_, span)) = self.parts.front().copied()
            && all.saturating_sub(span) >= longest
        {
            self.parts.pop_front();
            all = all.saturating_sub(span);
        }
    }

    fn mean(&self) -> Option<f64> {
        let (amount, time) = self
            .parts
            .iter()
            .fold((0.0, 0.0), |(amount, time), (part, span)| (amount + part, time + span.as_secs_f64()));
        (time > 0.0).then(|| amount / time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    /// What the meter says at each look, a second apart, rounded.
    fn read(measure: Measure, figures: impl IntoIterator<Item = Figures>) -> Vec<Option<i64>> {
        let (mut meter, begin) = (Meter::default(), Instant::now());
        let looks = figures.into_iter().zip(0..);
        looks
            .map(|(figures, second)| {
                let load = meter.read(begin + Duration::from_secs(second), measure, figures);
                load.map(|load| load.round() as i64)
            })
            .collect()
    }

    fn calls(calls: u64) -> Figures {
        Figures { calls, ..Figures::default() }
    }

    fn running(running: u64) -> Figures {
        Figures { running, ..Figures::default() }
    }

    #[test]
    fn calls_in_a_second_are_those_of_the_last_ten() {
        // One look is none; the first seconds are averaged among themselves.
        assert_eq!(read(Measure::Rps, [7, 107, 207].map(calls)), [None, Some(100), Some(100)]);
        // A burst of a second is a tenth of that, and is forgotten when it is older than ten.
        let burst = (0..25).map(|second| calls(if second < 12 { 0 } else { 1000 }));
        let loads = read(Measure::Rps, burst);
        assert_eq!((loads[11], loads[12], loads[21], loads[22]), (Some(0), Some(100), Some(100), Some(0)));
        // A function that was removed and made again counts from zero.
        assert_eq!(read(Measure::Rps, [1000, 0, 10].map(calls))[1..], [Some(0), Some(5)]);
    }

    #[test]
    fn calls_that_are_here_are_those_of_the_last_five_seconds() {
        let loads = read(Measure::Capacity, [0, 10, 10, 10, 10, 10, 0, 0, 0, 0, 0].map(running));
        let wanted = [10, 10, 10, 10, 10, 8, 6, 4, 2, 0];
        assert_eq!(loads[1..], wanted.map(Some));
    }

    #[test]
    fn a_look_that_came_late_counts_for_its_time() {
        let (mut meter, begin) = (Meter::default(), Instant::now());
        let mut at = |second, calls| {
            let figures = Figures { calls, ..Figures::default() };
            meter.read(begin + Duration::from_secs(second), Measure::Rps, figures)
        };
        assert_eq!((at(0, 0), at(0, 50)), (None, None));
        assert_eq!((at(4, 450), at(5, 450)), (Some(100.0), Some(80.0)));
    }

    #[test]
    fn processors_are_told_by_the_kernel_or_not_at_all() {
        let key = Key::new("f", "").unwrap();
        let used = |seconds: &[f64]| Figures {
            used: (0..)
                .zip(seconds)
                .map(|(replica, seconds)| Usage {
                    key: key.clone(),
                    replica,
                    cpu_seconds: Some(*seconds),
                    memory_bytes: None,
                })
                .collect(),
            ..Figures::default()
        };
        let looks = [used(&[1.0]), used(&[1.5]), used(&[2.0, 9.0]), used(&[2.5, 9.5])];
        assert_eq!(read(Measure::Cpu, looks)[1..], [Some(500), Some(500), Some(667)]);
        assert_eq!(read(Measure::Cpu, [Figures::default(), Figures::default()]), [None, None]);
    }
}
