//! `POST /system/alert`: Alertmanager's webhook. A function that is said to be busy gets more instances, one that is no
//! longer gets its least number.

use std::collections::BTreeMap;

use bytes::Buf;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Deserialize;

use super::Gateway;
use super::reply::{empty, refuse};
use super::system::{Answer, bad_request, read};
use super::wire::nullable;
use crate::key::Key;
use crate::reconcile::Refused;

/// Defaults of OpenFaaS's community edition for the labels below.
const LEAST: u64 = 1;
const MOST: u64 = 5;
const FACTOR: u64 = 10;

/// The step is counted from no more instances than that.
const COUNTED: u64 = 5;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Webhook {
    #[serde(deserialize_with = "nullable")]
    status: String,
    #[serde(deserialize_with = "nullable")]
    alerts: Vec<Alert>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Alert {
    #[serde(deserialize_with = "nullable")]
    status: String,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
}

impl Gateway {
    /// Scales the functions that alerts are about.
    pub async fn alert(&self, request: Request<Incoming>) -> Answer {
        let bytes = read(request).await.map_err(|_| bad_request("Unable to read alert."))?;
        let webhook: Webhook = serde_json::from_reader(bytes.reader())
            .map_err(|_| bad_request("Unable to parse alert, bad format."))?;
        let mut errors = Vec::new();
        for (number, alert) in webhook.alerts.iter().enumerate() {
            let status = if alert.status.is_empty() { &webhook.status } else { &alert.status };
            if let Err(error) = self.follow(alert, status == "firing").await {
                errors.push(format!("[{number}] {error}"));
            }
        }
        if errors.is_empty() {
            return Ok(empty(StatusCode::OK));
        }
        Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, errors.join("\n")))
    }

    async fn follow(&self, alert: &Alert, firing: bool) -> Result<(), String> {
        let name = alert.labels.get("function_name").map(String::as_str).unwrap_or_default();
        let key = Key::from_path(name).ok_or_else(|| format!("function_name {name:?} names no function"))?;
        let absent = || format!("function {key} not found");
        let function = self.functions.get(&key).ok_or_else(absent)?;
        let document = function.document().ok_or_else(absent)?;
        let wanted = wanted(firing, document.replicas, &document.labels);
        if wanted == document.replicas {
            return Ok(());
        }
        match self.functions.scale(&key, wanted).await {
            Ok(()) => Ok(()),
            Err(Refused::Absent | Refused::Exists) => Err(absent()),
            Err(Refused::Failed(error)) => Err(format!("function {key}: {error}")),
        }
    }
}

/// How many instances there should be, before the machine's own limit of one.
fn wanted(firing: bool, current: u64, labels: &BTreeMap<String, String>) -> u64 {
    let label = |name: &str| labels.get(&format!("com.openfaas.scale.{name}"))?.trim().parse::<u64>().ok();
    let most = label("max").filter(|most| *most > 0).unwrap_or(MOST);
    if !firing {
        return label("min").unwrap_or(LEAST);
    }
    let factor = label("factor").filter(|factor| *factor <= 100).unwrap_or(FACTOR);
    let step = (most.min(COUNTED) * factor).div_ceil(100);
    current.saturating_add(step).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps() {
        for (firing, current, labels, expected) in [
            (true, 1, &[][..], 2),
            (true, 0, &[], 1),
            (true, 5, &[], 5),
            (true, 9, &[], 5),
            (false, 5, &[], 1),
            (false, 0, &[], 1),
            (false, 1, &[("min", "0")], 0),
            (false, 5, &[("min", "2")], 2),
            (true, 1, &[("max", "20"), ("factor", "100")], 6),
            (true, 1, &[("max", "2"), ("factor", "100")], 2),
            (true, 1, &[("factor", "0")], 1),
            (true, 1, &[("factor", "200"), ("max", "many"), ("min", "-1")], 2),
            (true, 1, &[("max", "0")], 2),
            (true, u64::MAX, &[("max", "18446744073709551615")], u64::MAX),
        ] {
            let given = labels.iter().map(|(name, value): &(&str, &str)| {
                (format!("com.openfaas.scale.{name}"), (*value).to_owned())
            });
            assert_eq!(wanted(firing, current, &given.collect()), expected, "{firing} {current} {labels:?}");
        }
    }
}
