//! Alertmanager's webhook: which functions are busy. What follows from that is in their labels.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::nullable;
use crate::object::Object;

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
