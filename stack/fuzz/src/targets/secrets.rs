//! Secrets in the API's JSON.

use std::path::{Component, Path};

use crate::desired::SecretName;
use crate::gateway::wire::{Submitted, parse};

pub fn check(data: &[u8]) {
    let Ok(submitted) = parse::<Submitted>(data) else { return };
    if let Ok(name) = submitted.name.parse::<SecretName>() {
        // A file in the folder of its namespace, and no other.
        assert_eq!(name.as_str(), submitted.name);
        let parts: Vec<_> = Path::new(name.as_str()).components().collect();
        assert_eq!(parts, [Component::Normal(name.as_str().as_ref())]);
        assert!(name.as_str().len() < 255 && !name.as_str().contains(['\0', '~']));
    }
    // The value is taken by JSON's own words, not by ours.
    let Ok(fields) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    assert!(fields.is_object());
    let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
    let unfolded = text("rawValue").replace(['\r', '\n'], "");
    let meant = match text("rawValue").as_str() {
        "" => Some(text("value").into_bytes()),
        _ => super::base64(unfolded.as_bytes()),
    };
    assert_eq!(submitted.value().ok().map(|value| value.into_owned()), meant);
}
