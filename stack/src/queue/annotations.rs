//! What a function's annotations say of its asynchronous calls.

use std::collections::BTreeMap;

use provisioning::QueueName;

use super::policy::Overrides;

/// Names the function's queue.
const QUEUE: &str = "com.openfaas.queue";

/// The queue that they name; one that is no name was refused when the function was deployed.
pub fn named(annotations: &BTreeMap<String, String>) -> QueueName {
    said(annotations).and_then(|name| name.parse().ok()).unwrap_or_default()
}

/// What is wrong with the queue that they name, or with what they say of retries.
///
/// # Errors
/// One line for whoever wrote it.
pub fn check(annotations: &BTreeMap<String, String>) -> Result<(), String> {
    if let Some(name) = said(annotations)
        && let Err(error) = name.parse::<QueueName>()
    {
        return Err(format!("annotation {QUEUE}: {name:?} {error}"));
    }
    Overrides::parse(annotations).1.map_or(Ok(()), Err)
}

fn said(annotations: &BTreeMap<String, String>) -> Option<&str> {
    annotations.get(QUEUE).map(|name| name.trim()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_and_what_is_wrong_with_them() {
        let annotations = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert_eq!(named(&BTreeMap::new()).as_str(), "faas-request");
        assert_eq!(named(&annotations(QUEUE, " slow ")).as_str(), "slow");
        assert_eq!(named(&annotations(QUEUE, "")).as_str(), "faas-request");
        assert_eq!(check(&annotations(QUEUE, "slow")), Ok(()));
        let wrong = check(&annotations(QUEUE, "a.b")).unwrap_err();
        assert!(wrong.starts_with("annotation com.openfaas.queue: \"a.b\" "), "{wrong}");
        assert!(check(&annotations("com.openfaas.retry.codes", "ok")).is_err());
    }
}
