//! When calls are made again. An input is a function's annotations, `com.openfaas.retry.NAME=VALUE`, one a line; the line
//! `retry-after` is what the function says.

use std::collections::BTreeMap;
use std::time::Duration;

use provisioning::{Backoff, Retries};
use stack::queue::{Answer, Overrides, Policy, Verdict};

use crate::duration;

const DAY: Duration = Duration::from_secs(24 * 3600);

pub fn check(data: &[u8]) {
    // As it lies in a queue, whoever put it there.
    if let Ok(overrides) = serde_json::from_slice::<Overrides>(data) {
        let written = serde_json::to_vec(&overrides).unwrap();
        assert_eq!(serde_json::from_slice::<Overrides>(&written).unwrap(), overrides);
        for backoff in [Backoff::Exponential, Backoff::Full, Backoff::Equal] {
            let policy = Policy::new(&Retries { backoff, ..Retries::default() }, &overrides);
            for attempt in [0, 1, 40, u32::MAX] {
                let _ = policy.judge(&answer(503, None), attempt, u64::MAX);
            }
        }
    }
    let Ok(text) = str::from_utf8(data) else { return };
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let said: BTreeMap<String, String> = pairs.map(|(name, value)| (name.into(), value.into())).collect();
    let (overrides, wrong) = Overrides::parse(&said);
    assert_eq!(Overrides::of(&said), overrides);
    let given = Given::read(&said);
    assert_eq!(wrong.is_some(), given.wrong, "{wrong:?}");
    assert!(wrong.is_none_or(|wrong| wrong.starts_with("annotation com.openfaas.retry.")));
    let written = serde_json::to_vec(&overrides).unwrap();
    assert_eq!(serde_json::from_slice::<Overrides>(&written).unwrap(), overrides);
    assert_eq!(overrides.is_empty(), written == b"{}");
    for backoff in [Backoff::Exponential, Backoff::Full, Backoff::Equal] {
        let defaults = Retries { backoff, ..Retries::default() };
        let wanted = given.over(&defaults);
        let policy = Policy::new(&defaults, &overrides);
        assert_eq!(policy.attempts(), wanted.attempts);
        let after = said.get("retry-after").map(String::as_str);
        for (attempt, status) in [(1, 503), (1, 500), (2, 429), (3, 404), (33, 500), (1001, 502), (1, 200)] {
            judged(&policy, &wanted, answer(status, after), attempt);
        }
    }
}

fn answer(status: u16, retry_after: Option<&str>) -> Answer<'_> {
    Answer { status, internal: false, retry_after }
}

fn judged(policy: &Policy, wanted: &Retries, answer: Answer<'_>, attempt: u32) {
    let internal = Answer { internal: true, ..answer };
    assert_eq!(policy.judge(&internal, attempt, 0) == Verdict::Done, answer.status < 400);
    for random in [0, u64::MAX / 2, u64::MAX] {
        let pause = match policy.judge(&answer, attempt, random) {
            Verdict::Done => {
                assert!(!wanted.codes.contains(&answer.status));
                continue;
            }
            Verdict::GiveUp => {
                assert!(attempt > wanted.attempts && wanted.codes.contains(&answer.status));
                continue;
            }
            Verdict::Again(pause) => pause,
        };
        assert!(attempt <= wanted.attempts && wanted.codes.contains(&answer.status));
        assert!(pause <= DAY, "{pause:?}");
        if answer.retry_after.is_some() && matches!(answer.status, 429 | 503) {
            continue;
        }
        let mut longest = wanted.initial_wait;
        for _ in 1..attempt.min(100) {
            longest = (longest * 2).min(DAY);
        }
        // There is always a pause.
        let least = Duration::from_millis(100);
        let longest = longest.min(wanted.max_wait).max(least);
        // Of a nanosecond a part may be missing.
        let shortest = match wanted.backoff {
            Backoff::Exponential => longest,
            Backoff::Full => least,
            Backoff::Equal => (longest / 2).saturating_sub(Duration::from_micros(1)),
        };
        let shortest = shortest.max(least).min(longest);
        assert!(shortest <= pause && pause <= longest, "{pause:?} of {shortest:?} to {longest:?}");
    }
}

/// What the annotations say, read in another way.
#[derive(Default)]
struct Given {
    wrong: bool,
    attempts: Option<u32>,
    codes: Option<Vec<u16>>,
    min_wait: Option<Duration>,
    max_wait: Option<Duration>,
}

impl Given {
    fn read(said: &BTreeMap<String, String>) -> Self {
        let mut given = Self::default();
        for (name, text) in said {
            let text = text.trim();
            let Some(name) = name.strip_prefix("com.openfaas.retry.").filter(|_| !text.is_empty()) else {
                continue;
            };
            let number = |text: &str| text.parse::<u32>().ok();
            let wait = || duration::parse(text).filter(|wait| *wait <= DAY).map(whole_millis);
            let fits = match name {
                "attempts" => {
                    given.attempts = number(text).filter(|attempts| *attempts <= 1000);
                    given.attempts.is_some()
                }
                "codes" => {
                    let codes: Vec<_> = text.split(',').map(|code| number(code.trim())).collect();
                    let fit = codes.iter().all(|code| matches!(code, Some(400..=599)));
                    given.codes = fit.then(|| codes.into_iter().flatten().map(|code| code as u16).collect());
                    fit
                }
                "min_wait" => {
                    given.min_wait = wait();
                    given.min_wait.is_some()
                }
                "max_wait" => {
                    given.max_wait = wait();
                    given.max_wait.is_some()
                }
                _ => true,
            };
            given.wrong |= !fits;
        }
        given
    }

    fn over(&self, defaults: &Retries) -> Retries {
        let initial_wait = self.min_wait.unwrap_or(defaults.initial_wait);
        Retries {
            attempts: self.attempts.unwrap_or(defaults.attempts),
            initial_wait,
            max_wait: self.max_wait.unwrap_or(match self.min_wait {
                Some(_) => defaults.max_wait.max(initial_wait),
                None => defaults.max_wait,
            }),
            codes: self.codes.clone().map_or(defaults.codes.clone(), |codes| codes.into_iter().collect()),
            backoff: defaults.backoff,
        }
    }
}

fn whole_millis(wait: Duration) -> Duration {
    Duration::from_millis(wait.as_millis() as u64)
}
