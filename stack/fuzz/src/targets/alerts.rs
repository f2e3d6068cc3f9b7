//! Alertmanager's webhook.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::desired::Scale;
use crate::gateway::wire::{Webhook, parse};
use crate::object::Object;

pub fn check(data: &[u8]) {
    let Ok(webhook) = parse::<Webhook>(data) else { return };
    // What is skipped need not be text.
    let Ok(fields) = serde_json::from_slice::<Value>(data) else { return };
    let whole = fields["status"].as_str().unwrap_or_default();
    for (Object(alert), fields) in
        webhook.alerts.iter().zip(fields["alerts"].as_array().into_iter().flatten())
    {
        assert!(fields.is_object());
        let own = fields["status"].as_str().unwrap_or_default();
        assert_eq!(webhook.fires(alert), (if own.is_empty() { whole } else { own }) == "firing");
        assert_eq!(alert.function_name(), fields["labels"]["function_name"].as_str().unwrap_or_default());
        // As if the function had the labels of the alert.
        let labels: BTreeMap<String, String> =
            serde_json::from_value(fields["labels"].clone()).unwrap_or_default();
        steps(&labels);
    }
}

/// Going up ends at the most, in steps that are not large; coming down is one step, and the same from everywhere.
fn steps(labels: &BTreeMap<String, String>) {
    let scale = Scale::of(labels);
    let (least, most) = (scale.alerted(false, 0), scale.clamp(u64::MAX));
    assert!((1..=1000).contains(&most) && least <= most);
    for current in [0, 1, 4, 5, 19, 1000, u64::MAX] {
        let up = scale.alerted(true, current);
        assert!(up <= most && up <= current.saturating_add(5) && (up >= current || up == most));
        assert_eq!(scale.alerted(false, current), least);
    }
}
