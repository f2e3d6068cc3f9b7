//! When and how an instance is asked whether it is ready and well: OpenFaaS's annotations
//! `com.openfaas.{ready,health}.http.{path,initialDelaySeconds,periodSeconds,timeoutSeconds,failureThreshold,successThreshold}`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::command::Command;
use super::endpoint::{Endpoint, Silence};
use super::function::Function;
use super::ready;

/// What Kubernetes does where nothing is said.
const PERIOD: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(1);
const FAILURES: u32 = 3;
const SUCCESSES: u32 = 1;

/// Longest time and largest count that is taken.
const MOST: u64 = 3600;

/// One of the two kinds of question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Path that is asked for; nothing: the usual ones.
    pub path: Option<String>,
    /// Time before the first question.
    pub delay: Duration,
    period: Duration,
    timeout: Duration,
    failures: u32,
    successes: u32,
}

/// What is asked of a function's instances; nothing where the annotations say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probes {
    /// Whether calls should go to it.
    pub ready: Option<Probe>,
    /// Whether it should live.
    pub health: Option<Probe>,
}

impl Probes {
    /// Reads them; the error is one line for whoever wrote them.
    pub fn parse(annotations: &BTreeMap<String, String>) -> Result<Self, String> {
        let probe = |kind: &str| Probe::parse(annotations, kind);
        let (ready, health) = (probe("ready")?, probe("health")?);
        if let Some(Probe { period, successes, .. }) = &ready
            && period.saturating_mul(*successes).as_secs() > MOST
        {
            return Err(format!(
                "annotation com.openfaas.ready.http.successThreshold: {successes} times, {} s apart, is more than {MOST} s: \
                 a deployment waits for them",
                period.as_secs()
            ));
        }
        Ok(Self { ready, health })
    }

    /// What is not to be read counts as not there: a document that was taken by an older version must not stop.
    pub fn of(annotations: &BTreeMap<String, String>) -> Self {
        Self::parse(annotations).unwrap_or_default()
    }
}

impl Probe {
    fn parse(annotations: &BTreeMap<String, String>, kind: &str) -> Result<Option<Self>, String> {
        let prefix = format!("com.openfaas.{kind}.http.");
        let text = |name: &str| annotations.get(&format!("{prefix}{name}")).map(|text| text.trim());
        let number = |name: &str, default: u64, least: u64| match text(name) {
            None | Some("") => Ok(default),
            Some(text) => match text.parse::<u64>() {
                Ok(number) if (least..=MOST).contains(&number) => Ok(number),
                _ => {
                    Err(format!("annotation {prefix}{name}: {text:?} is not a number from {least} to {MOST}"))
                }
            },
        };
        let given = text("path").filter(|path| !path.is_empty());
        let path = given.map(|path| if path.starts_with('/') { path.to_owned() } else { format!("/{path}") });
        if path.as_ref().is_some_and(|path| path.parse::<hyper::http::uri::PathAndQuery>().is_err()) {
            return Err(format!("annotation {prefix}path: {:?} is no path", given.unwrap_or_default()));
        }
        let seconds = |name: &str, default: Duration, least| {
            number(name, default.as_secs(), least).map(Duration::from_secs)
        };
        let count = |name: &str, default: u32| {
            number(name, default.into(), 1).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
        };
        let probe = Self {
            path,
            delay: seconds("initialDelaySeconds", Duration::ZERO, 0)?,
            period: seconds("periodSeconds", PERIOD, 1)?,
            timeout: seconds("timeoutSeconds", TIMEOUT, 1)?,
            failures: count("failureThreshold", FAILURES)?,
            successes: count("successThreshold", SUCCESSES)?,
        };
        // Nobody who says nothing pays for questions.
        Ok(annotations.keys().any(|name| name.starts_with(&prefix)).then_some(probe))
    }

    /// What it asks of an instance that has just begun: as often as is of use, for somebody waits.
    pub fn wanted(&self) -> ready::Wanted<'_> {
        ready::Wanted {
            path: self.path.as_deref(),
            again: self.successes.saturating_sub(1),
            period: self.period,
        }
    }

    async fn ask(&self, endpoint: &Endpoint) -> Result<(), String> {
        let asked = ready::ask(endpoint.address, self.path.as_deref());
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer in {} s", self.timeout.as_secs())),
        }
    }
}

/// Counts answers in a row.
#[derive(Debug, Default)]
struct Row {
    well: u32,
    unwell: u32,
}

impl Row {
    fn count(&mut self, well: bool) {
        *self = if well {
            Self { well: self.well.saturating_add(1), unwell: 0 }
        } else {
            Self { well: 0, unwell: self.unwell.saturating_add(1) }
        };
    }
}

/// Asks an instance that calls are let into, as long as it lives: one that is not ready gets no calls until it is again,
/// one that is not well is replaced.
pub async fn follow(probes: Probes, function: Arc<Function>, id: String, endpoint: Arc<Endpoint>) {
    let ready = async {
        let Some(probe) = &probes.ready else { return std::future::pending().await };
        let mut row = Row::default();
        loop {
            tokio::time::sleep(probe.period).await;
            let answer = probe.ask(&endpoint).await;
            row.count(answer.is_ok());
            if row.unwell >= probe.failures {
                if function.pause(&endpoint, Silence::Unready) {
                    let reason = answer.err().unwrap_or_default();
                    tracing::warn!("{}: {id} is not ready: {reason}", function.key);
                }
            } else if row.well >= probe.successes {
                function.resume(endpoint.clone(), Silence::Unready);
            }
        }
    };
    let health = async {
        let Some(probe) = &probes.health else { return std::future::pending().await };
        let mut row = Row::default();
        tokio::time::sleep(probe.delay).await;
        loop {
            tokio::time::sleep(probe.period).await;
            let answer = probe.ask(&endpoint).await;
            row.count(answer.is_ok());
            if row.unwell >= probe.failures {
                return answer.err().unwrap_or_default();
            }
        }
    };
    let reason = tokio::select! {
        reason = health => reason,
        () = ready => return,
    };
    let _ = function.mailbox.send(Command::Unwell { id, reason });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Probes, String> {
        let pairs = pairs.iter().map(|(name, value)| (format!("com.openfaas.{name}"), (*value).to_owned()));
        Probes::parse(&pairs.collect())
    }

    #[test]
    fn annotations() {
        assert_eq!(parse(&[]).unwrap(), Probes::default());
        assert_eq!(parse(&[("topic", "x")]).unwrap(), Probes::default());
        let probes = parse(&[
            ("ready.http.path", "is/up"),
            ("ready.http.periodSeconds", "2"),
            ("health.http.failureThreshold", "5"),
        ])
        .unwrap();
        let (ready, health) = (probes.ready.unwrap(), probes.health.unwrap());
        assert_eq!((ready.path.as_deref(), ready.period), (Some("/is/up"), Duration::from_secs(2)));
        assert_eq!((ready.timeout, ready.failures, ready.successes), (TIMEOUT, 3, 1));
        assert_eq!((health.path, health.period, health.failures), (None, PERIOD, 5));
    }

    #[test]
    fn refusals_name_annotation_and_value() {
        for (name, value, wanted) in [
            ("ready.http.periodSeconds", "0", "\"0\" is not a number from 1 to 3600"),
            ("health.http.timeoutSeconds", "1m", "\"1m\" is not a number from 1 to 3600"),
            ("health.http.path", "a b", "\"a b\" is no path"),
        ] {
            let error = parse(&[(name, value)]).unwrap_err();
            assert_eq!(error, format!("annotation com.openfaas.{name}: {wanted}"));
        }
    }

    #[test]
    fn nobody_waits_for_days() {
        let both = |period, successes| {
            parse(&[("ready.http.periodSeconds", period), ("ready.http.successThreshold", successes)])
        };
        assert!(both("60", "60").is_ok());
        let error = both("3600", "2").unwrap_err();
        assert!(error.starts_with("annotation com.openfaas.ready.http.successThreshold: 2 times"), "{error}");
        // Nobody waits for an instance to be well.
        assert!(
            parse(&[("health.http.periodSeconds", "3600"), ("health.http.successThreshold", "2")]).is_ok()
        );
    }

    #[test]
    fn answers_in_a_row() {
        let mut row = Row::default();
        for well in [false, false, true, false] {
            row.count(well);
        }
        assert_eq!((row.well, row.unwell), (0, 1));
    }
}
