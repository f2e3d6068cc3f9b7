//! The longest time of a call.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::Invalid;

/// Units, largest first, in seconds.
const UNITS: [(char, u64); 3] = [('h', 3600), ('m', 60), ('s', 1)];

/// A day: what takes longer is no call.
const LONGEST_SECONDS: u64 = 24 * 3600;

/// How long a call of a function may take: `90s`, `5m`, `1h30m`. At least a second, at most a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout(Duration);

impl Timeout {
    /// The time.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl Default for Timeout {
    /// A minute.
    fn default() -> Self {
        Self(Duration::from_secs(60))
    }
}

/// In whole seconds: `90s`.
impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0.as_secs())
    }
}

impl FromStr for Timeout {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        within(text, 1..=LONGEST_SECONDS).map(Self)
    }
}

/// A time that is written so, of so many seconds.
pub(crate) fn within(text: &str, range: RangeInclusive<u64>) -> Result<Duration, Invalid> {
    let fits = seconds(text).filter(|seconds| range.contains(seconds));
    fits.map(Duration::from_secs).ok_or_else(|| {
        Invalid(format!(
            "is not a time, expected something like \"90s\", \"5m\" or \"1h30m\", from {} to {}",
            shown(*range.start()),
            shown(*range.end())
        ))
    })
}

/// Such a time as it is written, in the fewest units.
pub(crate) fn shown(seconds: u64) -> String {
    let (mut rest, mut text) = (seconds, String::new());
    for (unit, size) in UNITS {
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// The sum of numbers with units, each unit once and the larger ones first.
fn seconds(text: &str) -> Option<u64> {
    let (mut rest, mut sum, mut found) = (text, 0_u64, false);
    for (unit, size) in UNITS {
        if let Some((number, after)) = rest.split_once(unit) {
            if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(size)?)?;
            (rest, found) = (after, true);
        }
    }
    (found && rest.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_as_it_is_written() {
        for text in ["0s", "1s", "1m30s", "2m", "1h1s", "720h"] {
            assert_eq!(seconds(text).map(shown).as_deref(), Some(text));
        }
    }

    #[test]
    fn times() {
        for (text, wanted) in
            [("1s", 1), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("1h1m1s", 3661), ("24h", 86_400)]
        {
            let timeout: Timeout = text.parse().unwrap();
            assert_eq!(timeout.duration(), Duration::from_secs(wanted), "{text}");
            assert_eq!(timeout.to_string().parse(), Ok(timeout));
        }
        for bad in [
            "",
            "60",
            "0s",
            "s",
            "1d",
            "1.5m",
            "5s1m",
            "1m1m",
            " 1s",
            "+1s",
            "-1s",
            "25h",
            "99999999999999999999s",
            "1s ",
            "9999999999999999999h",
        ] {
            assert!(bad.parse::<Timeout>().is_err(), "{bad}");
        }
    }
}
