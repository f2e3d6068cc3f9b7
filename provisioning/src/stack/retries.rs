//! When a call that failed is made again.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::Invalid;

/// How often, when, and after what. Values are those of OpenFaaS's queue-worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// How often at most; 0: never again.
    pub attempts: u32,
    /// How long it waits the first time.
    pub initial_wait: Duration,
    /// How long it waits at most; not less than the first time.
    pub max_wait: Duration,
    /// The status codes after which it is made again, each from 400 to 599; with none, no answer is.
    pub codes: BTreeSet<u16>,
    /// How the waiting grows.
    pub backoff: Backoff,
}

impl Retries {
    /// The status codes after which a call may be made again: those that say that it failed.
    pub(crate) const FAILURES: std::ops::RangeInclusive<u16> = 400..=599;
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 10,
            initial_wait: Duration::from_secs(10),
            max_wait: Duration::from_secs(120),
            codes: BTreeSet::from([408, 429, 500, 502, 503, 504]),
            backoff: Backoff::default(),
        }
    }
}

/// How the waiting grows from one attempt to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backoff {
    /// Twice as long each time.
    #[default]
    Exponential,
    /// By chance, from nothing to that: calls that failed together do not come back together.
    Full,
    /// By chance, from half of that to that.
    Equal,
}

impl Backoff {
    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exponential => "exponential",
            Self::Full => "full",
            Self::Equal => "equal",
        }
    }
}

impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Backoff {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let all = [Self::Exponential, Self::Full, Self::Equal];
        all.into_iter().find(|backoff| backoff.as_str() == text).ok_or_else(|| {
            Invalid(
                "is no way to wait longer, expected \"exponential\", \"full\" or \"equal\" (both by chance)"
                    .to_owned(),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_wait() {
        for backoff in [Backoff::Exponential, Backoff::Full, Backoff::Equal] {
            assert_eq!(backoff.to_string().parse(), Ok(backoff));
        }
        for bad in ["", "Full", "linear", "full "] {
            assert!(bad.parse::<Backoff>().is_err(), "{bad}");
        }
    }

    #[test]
    fn defaults_are_within_their_bounds() {
        let retries = Retries::default();
        assert!(retries.initial_wait <= retries.max_wait);
        assert!(retries.codes.iter().all(|code| Retries::FAILURES.contains(code)));
    }
}
