//! Functions in the API's JSON: what is asked for, kept, shown, and asked for again as it was shown.

use serde_json::{Value, json};

use crate::desired::{Document, Scale};
use crate::gateway::check::check as what_is_wrong;
use crate::gateway::wire::{Deletion, Deployment, Scaling, Status, parse};
use crate::key::Key;

pub fn check(data: &[u8]) {
    others(data);
    let Ok(deployment) = parse::<Deployment>(data) else { return };
    let Some(key) = Key::new(&deployment.service, &deployment.namespace) else { return };
    let document = deployment.document(&key);
    assert_eq!(document.key().as_ref(), Some(&key));
    let wrong = what_is_wrong(&document);
    // The disk keeps it byte for byte.
    let kept: Document = serde_json::from_slice(&serde_json::to_vec(&document).unwrap()).unwrap();
    assert_eq!(kept, document);
    assert_eq!((what_is_wrong(&kept), kept.digest()), (wrong.clone(), document.digest()));
    let again = shown_and_sent_back(&key, &document);
    assert_eq!(Document { created_at: document.created_at, ..again }, document);
    if let Ok(fields) = serde_json::from_slice::<Value>(data) {
        assert!(["limits", "requests"].iter().all(|name| !fields[name].is_array()));
    }
    match wrong.err() {
        None => usable(&document),
        Some(wrong) => assert!(!wrong.is_empty()),
    }
}

/// A client that reads a function and deploys it again means the same function.
fn shown_and_sent_back(key: &Key, document: &Document) -> Document {
    let mut shown: Value = serde_json::to_value(Status::new(document, 1, 7)).unwrap();
    for field in ["labels", "annotations"] {
        assert!(shown[field].is_object());
    }
    assert!(shown["labels"]["faas_function"].is_string());
    shown["service"] = json!(key.name.as_str());
    serde_json::from_value::<Deployment>(shown).unwrap().document(key)
}

/// What was found in order can be started.
fn usable(document: &Document) {
    for (name, value) in &document.environment {
        assert!(!name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'));
    }
    assert!(document.env_process.as_ref().is_none_or(|text| !text.contains('\0')));
    let scale = Scale::of(&document.labels);
    assert!(scale.initial() >= 1 && scale.clamp(scale.initial()) == scale.initial());
    assert_eq!(scale.clamp(0), 0);
    assert!((1..=1000).contains(&scale.clamp(u64::MAX)));
    assert!(scale.zero.is_none_or(|zero| zero.after.is_none_or(|after| !after.is_zero())));
    if let Some(load) = scale.load {
        assert!(load.target > 0.0 && load.proportion > 0.0 && (load.target * load.proportion).is_finite());
        assert!(load.window.as_secs() <= 300);
    }
}

/// `null` is as good as absent, and what is not known is nobody's business.
fn others(data: &[u8]) {
    let Ok(body) = serde_json::from_slice::<Value>(data) else { return };
    let Value::Object(fields) = body else {
        assert!(
            parse::<Deployment>(data).is_err()
                && parse::<Deletion>(data).is_err()
                && parse::<Scaling>(data).is_err()
        );
        return;
    };
    let said = || fields.iter().filter(|(_, value)| !value.is_null());
    let without: Value = said().map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut with = without.clone();
    with["nobody knows"] = json!([{}]);
    let same = |one: &Value, other: &Value| {
        let deletion = |value: &Value| {
            let read = serde_json::from_value::<Deletion>(value.clone()).ok()?;
            Some((read.function_name, read.namespace))
        };
        let scaling = |value: &Value| {
            let read = serde_json::from_value::<Scaling>(value.clone()).ok()?;
            Some((read.service_name, read.replicas, read.namespace))
        };
        assert_eq!((deletion(one), scaling(one)), (deletion(other), scaling(other)));
        let deployment = |value: &Value| serde_json::from_value::<Deployment>(value.clone()).is_ok();
        assert_eq!(deployment(one), deployment(other));
    };
    same(&Value::Object(fields.clone()), &without);
    same(&without, &with);
}
