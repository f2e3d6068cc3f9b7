//! Which calls are made again, and when.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use provisioning::{Backoff, Retries};
use serde::{Deserialize, Serialize};

use crate::duration;

const ATTEMPTS: &str = "com.openfaas.retry.attempts";
const CODES: &str = "com.openfaas.retry.codes";
const MIN_WAIT: &str = "com.openfaas.retry.min_wait";
const MAX_WAIT: &str = "com.openfaas.retry.max_wait";

/// The most that a function may ask for; who asks for more gets the worker's default. What bothy.toml says is checked where it
/// is read.
const MOST_ATTEMPTS: u32 = 1000;
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
/// Whatever is asked for, and whatever is drawn: a thousand attempts without a pause would be a load.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// What a function's annotations say; what they do not, or not so that it can be read, is as the worker has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overrides {
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    codes: Option<Vec<u16>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_wait_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_wait_ms: Option<u64>,
}

impl Overrides {
    /// Reads annotations.
    pub fn of(annotations: &BTreeMap<String, String>) -> Self {
        Self::parse(annotations).0
    }

    /// Reads annotations; also what is wrong with the first that is, one line for whoever wrote it.
    pub fn parse(annotations: &BTreeMap<String, String>) -> (Self, Option<String>) {
        let mut wrong = None;
        let mut note = |name: &str, text: &str, expected: &str| {
            wrong.get_or_insert_with(|| format!("annotation {name}: {text:?} is no {expected}"));
        };
        let said = |name: &str| annotations.get(name).map(|text| text.trim()).filter(|text| !text.is_empty());
        let attempts = said(ATTEMPTS).and_then(|text| {
            let fits = text.parse().ok().filter(|attempts| *attempts <= MOST_ATTEMPTS);
            fits.or_else(|| {
                note(ATTEMPTS, text, "number from 0 to 1000");
                None
            })
        });
        let codes = said(CODES).and_then(|text| {
            let code = |code: &str| code.trim().parse().ok().filter(|code| (400..600).contains(code));
            let all: Option<Vec<u16>> = text.split(',').map(code).collect();
            all.or_else(|| {
                note(CODES, text, "list of statuses from 400 to 599 such as 429,503");
                None
            })
        });
        let mut wait = |name: &str| {
            let text = said(name)?;
            let fits = duration::parse(text).filter(|wait| *wait <= LONGEST_WAIT);
            if fits.is_none() {
                note(name, text, "duration such as 10s, up to 24h");
            }
            fits.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
        };
        let (min_wait_ms, max_wait_ms) = (wait(MIN_WAIT), wait(MAX_WAIT));
        (Self { attempts, codes, min_wait_ms, max_wait_ms }, wrong)
    }

    /// Whether they say nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What follows from an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is over.
    Done,
    /// It is made again after that time.
    Again(Duration),
    /// It is given up.
    GiveUp,
}

/// An attempt's answer, as far as it matters.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// Whether the platform gave it, and not the function.
    pub internal: bool,
    /// Its `Retry-After`.
    pub retry_after: Option<&'a str>,
}

/// When one call is made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy(Retries);

impl Policy {
    /// The worker's defaults and what the function says.
    pub fn new(defaults: &Retries, overrides: &Overrides) -> Self {
        let mut retries = defaults.clone();
        if let Some(attempts) = overrides.attempts {
            retries.attempts = attempts;
        }
        if let Some(codes) = &overrides.codes {
            retries.codes = codes.iter().copied().collect();
        }
        if let Some(wait) = overrides.min_wait_ms {
            retries.initial_wait = Duration::from_millis(wait);
            // A function that only says how long the first pause is means no shorter ones after it.
            retries.max_wait = retries.max_wait.max(retries.initial_wait);
        }
        if let Some(wait) = overrides.max_wait_ms {
            retries.max_wait = Duration::from_millis(wait);
        }
        Self(retries)
    }

    /// How often it is made again at most.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// What follows from an answer to the call's attempt of that number, from 1 on. `random` is any number, by
    /// chance.
    pub fn judge(&self, answer: &Answer<'_>, attempt: u32, random: u64) -> Verdict {
        let wanted = (answer.internal && answer.status >= 400) || self.0.codes.contains(&answer.status);
        match wanted {
            false => Verdict::Done,
            true if attempt > self.0.attempts => Verdict::GiveUp,
            true => Verdict::Again(self.pause(answer, attempt, random)),
        }
    }

    fn pause(&self, answer: &Answer<'_>, attempt: u32, random: u64) -> Duration {
        if matches!(answer.status, 429 | 503)
            && let Some(asked) = answer.retry_after.and_then(retry_after)
        {
            return asked.min(LONGEST_WAIT).max(self.0.initial_wait);
        }
        let factor = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        let pause = self.0.initial_wait.saturating_mul(factor).min(self.0.max_wait);
        let part = random as f64 / u64::MAX as f64;
        let pause = match self.0.backoff {
            Backoff::Exponential => pause,
            Backoff::Full => pause.mul_f64(part),
            Backoff::Equal => pause.mul_f64(0.5 + part / 2.0),
        };
        pause.max(LEAST_PAUSE)
    }
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let date = httpdate::parse_http_date(text).ok()?;
    // A date that is over means now.
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries(backoff: Backoff) -> Retries {
        Retries { attempts: 4, initial_wait: secs(10), max_wait: secs(50), backoff, ..Retries::default() }
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_made_again() {
        let policy = Policy::new(&retries(Backoff::Exponential), &Overrides::default());
        for (status, internal, attempt, wanted) in [
            (200, false, 1, Verdict::Done),
            (404, false, 1, Verdict::Done),
            (404, true, 1, Verdict::Again(secs(10))),
            (200, true, 1, Verdict::Done),
            (429, false, 1, Verdict::Again(secs(10))),
            (500, false, 2, Verdict::Again(secs(20))),
            (500, false, 3, Verdict::Again(secs(40))),
            (500, false, 4, Verdict::Again(secs(50))),
            (500, false, 5, Verdict::GiveUp),
            (500, false, 100, Verdict::GiveUp),
            (501, false, 1, Verdict::Done),
        ] {
            let answer = Answer { status, internal, retry_after: None };
            assert_eq!(policy.judge(&answer, attempt, 0), wanted, "{status} {internal} {attempt}");
        }
        let many =
            Policy::new(&Retries { attempts: 1000, ..retries(Backoff::Exponential) }, &Overrides::default());
        let answer = Answer { status: 500, internal: false, retry_after: None };
        assert_eq!(many.judge(&answer, 999, 0), Verdict::Again(secs(50)));
    }

    #[test]
    fn chance_shortens_a_pause_as_far_as_it_may() {
        let answer = Answer { status: 500, internal: false, retry_after: None };
        for (backoff, random, wanted) in [
            (Backoff::Full, u64::MAX / 2, 10),
            (Backoff::Full, u64::MAX, 20),
            (Backoff::Equal, 0, 10),
            (Backoff::Equal, u64::MAX, 20),
            (Backoff::Exponential, 0, 20),
        ] {
            let policy = Policy::new(&retries(backoff), &Overrides::default());
            let Verdict::Again(pause) = policy.judge(&answer, 2, random) else { panic!("{backoff}") };
            assert_eq!(pause.as_secs_f64().round() as u64, wanted, "{backoff} {random}");
        }
    }

    #[test]
    fn there_is_always_a_pause() {
        let answer = Answer { status: 500, internal: false, retry_after: None };
        let policy = Policy::new(&retries(Backoff::Full), &Overrides::default());
        assert_eq!(policy.judge(&answer, 1, 0), Verdict::Again(LEAST_PAUSE));
    }

    #[test]
    fn the_function_says_when() {
        let policy = Policy::new(&retries(Backoff::Exponential), &Overrides::default());
        let again = |status, text| match policy.judge(
            &Answer { status, internal: false, retry_after: Some(text) },
            1,
            0,
        ) {
            Verdict::Again(pause) => pause.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(again(429, "300"), 300);
        assert_eq!(again(503, " 3"), 10, "no sooner than the first pause");
        assert_eq!(again(500, "300"), 10, "of these two alone");
        assert_eq!(again(503, "soon"), 10);
        assert_eq!(again(503, "99999999999999999999999"), 10);
        assert_eq!(again(503, "999999999"), 24 * 3600);
        let date = httpdate::fmt_http_date(SystemTime::now() + secs(100));
        assert!((95..=100).contains(&again(503, &date)), "{date}");
        assert_eq!(again(503, "Thu, 01 Jan 1970 00:00:00 GMT"), 10);
    }

    #[test]
    fn a_functions_own_rules() {
        let given = annotations(&[(ATTEMPTS, "2"), (CODES, "500, 502"), (MIN_WAIT, "1m"), (MAX_WAIT, " 1h")]);
        let (overrides, wrong) = Overrides::parse(&given);
        assert_eq!(wrong, None);
        let Policy(found) = Policy::new(&retries(Backoff::Exponential), &overrides);
        assert_eq!((found.attempts, found.initial_wait, found.max_wait), (2, secs(60), secs(3600)));
        assert_eq!(found.codes.into_iter().collect::<Vec<_>>(), [500, 502]);
        let (overrides, _) = Overrides::parse(&annotations(&[(MIN_WAIT, "5m")]));
        let Policy(found) = Policy::new(&retries(Backoff::Exponential), &overrides);
        assert_eq!((found.initial_wait, found.max_wait), (secs(300), secs(300)));
        for (name, text, wanted) in [
            (
                ATTEMPTS,
                "many",
                "annotation com.openfaas.retry.attempts: \"many\" is no number from 0 to 1000",
            ),
            (
                ATTEMPTS,
                "1001",
                "annotation com.openfaas.retry.attempts: \"1001\" is no number from 0 to 1000",
            ),
            (CODES, "500,200", "annotation com.openfaas.retry.codes: \"500,200\" is no list of statuses"),
            (MIN_WAIT, "25h", "annotation com.openfaas.retry.min_wait: \"25h\" is no duration"),
        ] {
            let (overrides, wrong) = Overrides::parse(&annotations(&[(name, text), ("other", "x")]));
            assert!(overrides.is_empty());
            assert!(wrong.as_ref().is_some_and(|wrong| wrong.starts_with(wanted)), "{wrong:?}");
        }
        assert!(Overrides::of(&annotations(&[(CODES, "")])).is_empty());
    }
}
