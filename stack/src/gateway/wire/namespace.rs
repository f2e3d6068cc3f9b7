//! A namespace, as clients see it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::nullable;
use crate::desired::MARK;
use crate::gateway::router::Act;

/// A namespace as clients see it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FunctionNamespace {
    /// Its name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Annotations.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Labels.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl FunctionNamespace {
    fn is_marked(&self) -> bool {
        is_marked(self.labels.get(MARK)) || is_marked(self.annotations.get(MARK))
    }
}

/// Whether a label or an annotation has the value that marks a namespace for functions.
pub fn is_marked(value: Option<&String>) -> bool {
    value.is_some_and(|value| value == "1" || value == "true")
}

/// What is wrong with a body, whatever there is on the machine.
pub fn check(body: &FunctionNamespace, path: &str, act: Act) -> Result<(), &'static str> {
    if body.name.is_empty() {
        return Err("namespace not specified in request body");
    }
    if !path.is_empty() && body.name != path {
        return Err("namespace in request body does not match namespace in URL");
    }
    if act != Act::Remove && !body.is_marked() {
        return Err("request does not have openfaas=1 label");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies() {
        let refusal = |text: &str, path: &str, act| {
            let body: FunctionNamespace = serde_json::from_str(text).unwrap();
            check(&body, path, act).err().unwrap_or_default()
        };
        let label = r#"{"name":"dev","labels":{"openfaas":"1"},"annotations":null}"#;
        let annotation = r#"{"name":"dev","annotations":{"openfaas":"true"}}"#;
        let bare = r#"{"name":"dev"}"#;
        for good in [label, annotation] {
            assert_eq!(refusal(good, "", Act::Create), "");
            assert_eq!(refusal(good, "dev", Act::Replace), "");
        }
        assert_eq!(refusal(bare, "dev", Act::Remove), "");
        for act in [Act::Create, Act::Replace] {
            assert_eq!(refusal(bare, "dev", act), "request does not have openfaas=1 label");
            let odd = r#"{"name":"dev","labels":{"openfaas":"0"}}"#;
            assert_eq!(refusal(odd, "dev", act), "request does not have openfaas=1 label");
        }
        assert_eq!(refusal("{}", "dev", Act::Remove), "namespace not specified in request body");
        let other = "namespace in request body does not match namespace in URL";
        assert_eq!(refusal(label, "other", Act::Replace), other);
    }
}
