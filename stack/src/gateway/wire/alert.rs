//! Alertmanager's webhook: which functions are busy, and what follows from that.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::nullable;
use crate::object::Object;

/// Defaults of OpenFaaS's community edition for the labels below.
const LEAST: u64 = 1;
const MOST: u64 = 5;
const FACTOR: u64 = 10;

/// The step is counted from no more instances than that.
const COUNTED: u64 = 5;

/// Body of POST /system/alert.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Webhook {
    #[serde(deserialize_with = "nullable")]
    status: String,
    #[serde(deserialize_with = "nullable")]
    /// The alerts, in their order.
    pub alerts: Vec<Object<Alert>>,
}

impl Webhook {
    /// Whether one of its alerts says that there is too much to do. Alerts that say nothing are as the whole is.
    pub fn fires(&self, alert: &Alert) -> bool {
        let status = if alert.status.is_empty() { &self.status } else { &alert.status };
        status == "firing"
    }
}

/// One alert.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Alert {
    #[serde(deserialize_with = "nullable")]
    status: String,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
}

impl Alert {
    /// The function that it is about, as the alert has it.
    pub fn function_name(&self) -> &str {
        self.labels.get("function_name").map(String::as_str).unwrap_or_default()
    }
}

/// How many instances there should be.
pub fn wanted(firing: bool, current: u64, labels: &BTreeMap<String, String>) -> u64 {
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
