//! A function: as it is asked for, scaled and deleted, and as it is shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::nullable;
use crate::desired::{Amounts, Document};
use crate::key::Key;
use crate::object::Object;
use crate::reconcile::Present;
use crate::timestamp;

/// Label that carries a function's own name, as clients of the full contract expect it.
const NAME_LABEL: &str = "faas_function";

/// Annotation that a description has of a function whose process ended and should not have: when, which instance and how.
/// (Clients print annotations; a field that they do not know they do not.)
const EXIT_ANNOTATION: &str = "com.bothy.last-exit";

/// Body of POST and PUT /system/functions.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Deployment {
    /// The function's name.
    #[serde(deserialize_with = "nullable")]
    pub service: String,
    /// The image's reference.
    #[serde(deserialize_with = "nullable")]
    pub image: String,
    /// Its namespace, or empty.
    #[serde(deserialize_with = "nullable")]
    pub namespace: String,
    #[serde(deserialize_with = "nullable")]
    env_process: String,
    #[serde(deserialize_with = "nullable")]
    env_vars: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    constraints: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    secrets: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    annotations: BTreeMap<String, String>,
    limits: Option<Object<Amounts>>,
    requests: Option<Object<Amounts>>,
    #[serde(deserialize_with = "nullable")]
    read_only_root_filesystem: bool,
}

impl Deployment {
    /// The document that it asks for.
    pub fn document(mut self, key: &Key) -> Document {
        // We show it with every function: a client that sends back what it was shown does not mean it.
        if self.labels.get(NAME_LABEL).is_some_and(|name| *name == self.service) {
            self.labels.remove(NAME_LABEL);
        }
        self.annotations.remove(EXIT_ANNOTATION);
        Document {
            env_process: Some(self.env_process).filter(|text| !text.is_empty()),
            environment: self.env_vars,
            constraints: self.constraints,
            secrets: self.secrets,
            labels: self.labels,
            annotations: self.annotations,
            limits: said(self.limits),
            requests: said(self.requests),
            read_only_root_filesystem: self.read_only_root_filesystem,
            ..Document::new(key, &self.image)
        }
    }
}

/// Amounts that say nothing are none.
fn said(amounts: Option<Object<Amounts>>) -> Option<Amounts> {
    amounts.map(|Object(amounts)| amounts).filter(|amounts| *amounts != Amounts::default())
}

/// Body of DELETE /system/functions.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Deletion {
    /// The function's name.
    #[serde(deserialize_with = "nullable")]
    pub function_name: String,
    /// Its namespace, or empty.
    #[serde(deserialize_with = "nullable")]
    pub namespace: String,
}

/// Body of POST /system/scale-function/NAME.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scaling {
    /// The function's name, or empty: then the path's counts.
    #[serde(deserialize_with = "nullable")]
    pub service_name: String,
    /// How many instances.
    pub replicas: u64,
    /// Its namespace, or empty.
    #[serde(deserialize_with = "nullable")]
    pub namespace: String,
}

/// A function as lists and descriptions show it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    name: String,
    image: String,
    namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    env_process: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env_vars: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    constraints: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<String>,
    // These two are there even when they are empty: clients look into them without asking.
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Amounts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<Amounts>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_only_root_filesystem: bool,
    #[serde(skip_serializing_if = "is_zero")]
    invocation_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    replicas: u64,
    #[serde(skip_serializing_if = "is_zero")]
    available_replicas: u64,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Use>,
}

/// What a function uses, all its instances together.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Use {
    /// Thousandths of a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_memory_bytes: Option<u64>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Status {
    /// Shows a document, how many of its instances answer, and how often it was called.
    pub fn new(document: &Document, available: usize, calls: u64) -> Self {
        let document = document.clone();
        let mut labels = document.labels;
        labels.entry(NAME_LABEL.to_owned()).or_insert_with(|| document.name.clone());
        Self {
            name: document.name,
            image: document.image,
            namespace: document.namespace,
            env_process: document.env_process,
            env_vars: document.environment,
            constraints: document.constraints,
            secrets: document.secrets,
            labels,
            annotations: document.annotations,
            limits: document.limits,
            requests: document.requests,
            read_only_root_filesystem: document.read_only_root_filesystem,
            invocation_count: calls,
            replicas: document.replicas,
            available_replicas: available as u64,
            created_at: timestamp::rfc3339(document.created_at),
            usage: None,
        }
    }
}

impl Status {
    /// With how the function's last process ended that should not have.
    pub fn with_exit(mut self, exit: Option<String>) -> Self {
        self.annotations.extend(exit.map(|exit| (EXIT_ANNOTATION.to_owned(), exit)));
        self
    }

    /// Shows what it uses, too.
    pub fn with_usage(mut self, present: Option<Present>) -> Self {
        self.usage = present
            .map(|present| Use { cpu: present.cpu_millicores, total_memory_bytes: present.memory_bytes });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn null_unknown_and_absent_are_fine() {
        let text = json!({"service": "f", "image": "f:1", "labels": null, "annotations": {"a": "b"}, "network": "x",
                          "registryAuth": "y", "limits": {"memory": "1Gi", "nvidia.com/gpu": "1"}, "requests": {}});
        let deployment: Deployment = serde_json::from_value(text).unwrap();
        let document = deployment.document(&Key::new("f", "").unwrap());
        assert_eq!(document.limits.unwrap().memory.as_deref(), Some("1Gi"));
        assert_eq!(document.requests, None);
        assert_eq!(document.annotations["a"], "b");
        let read = |text: &str| crate::gateway::wire::parse::<Deployment>(text.as_bytes());
        assert!(read("{}").is_ok());
        for bad in ["[]", r#"["f", "f:1"]"#, r#"{"service": "f", "limits": ["1Gi"]}"#] {
            assert!(read(bad).unwrap_err().to_string().contains("expected an object"), "{bad}");
        }
    }

    #[test]
    fn what_was_shown_is_not_stored() {
        let labels = |name: &str| {
            let text = json!({"service": "f", "image": "f:1", "labels": {"faas_function": name, "a": "b"}});
            let deployment: Deployment = serde_json::from_value(text).unwrap();
            deployment.document(&Key::new("f", "").unwrap()).labels.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(labels("f"), ["a"]);
        assert_eq!(labels("other"), ["a", "faas_function"]);
    }

    #[test]
    fn how_it_ended_is_shown_and_not_stored() {
        let document = Document::new(&Key::new("f", "").unwrap(), "f:1");
        let mut shown =
            serde_json::to_value(Status::new(&document, 1, 0).with_exit(Some("signal 9".into()))).unwrap();
        assert_eq!(shown["annotations"], json!({"com.bothy.last-exit": "signal 9"}));
        shown["service"] = json!("f");
        let again: Deployment = serde_json::from_value(shown).unwrap();
        assert!(again.document(&Key::new("f", "").unwrap()).annotations.is_empty());
    }

    #[test]
    fn what_is_shown() {
        let mut document = Document::new(&Key::new("f", "").unwrap(), "f:1");
        document.created_at = 0;
        let shown = serde_json::to_value(Status::new(&document, 0, 0)).unwrap();
        assert_eq!(
            shown,
            json!({"name": "f", "image": "f:1", "namespace": "openfaas-fn", "labels": {"faas_function": "f"},
                   "annotations": {}, "replicas": 1, "createdAt": "1970-01-01T00:00:00Z"})
        );
        document.environment.insert("a".into(), "b=c=d".into());
        let shown = serde_json::to_value(Status::new(&document, 1, 3)).unwrap();
        assert_eq!(shown["availableReplicas"], 1);
        assert_eq!(shown["invocationCount"], 3);
        assert_eq!(shown["envVars"]["a"], "b=c=d");
    }
}
