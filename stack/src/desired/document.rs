//! The document of one function.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::scale::Scale;
use crate::key::Key;
use crate::timestamp;

/// The version that this code writes; a file of a higher one is kept aside, unread.
pub const VERSION: u32 = 1;

/// Memory and processor time as they were submitted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// Memory, such as `128Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Processor time, such as `100m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
}

/// What a function should be. Text is kept as submitted, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Format of this file.
    pub version: u32,
    /// The function's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The image's reference as submitted.
    pub image: String,
    /// The process that the watchdog starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_process: Option<String>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Names of secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Placement constraints: what the machine must be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
    /// What it may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Amounts>,
    /// What it has first where there is not enough for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Amounts>,
    /// Whether its root file system is read-only.
    #[serde(default)]
    pub read_only_root_filesystem: bool,
    /// When this document was submitted, in seconds since 1970.
    pub created_at: u64,
    /// Counts the deployments of one name, so that deploying the same again makes a new instance.
    pub revision: u64,
    /// How many instances should run.
    pub replicas: u64,
    /// Whether somebody asked for that number, and not the function's load, for a function that its load scales.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_hand: bool,
    /// Digest of the configuration's entry that was applied last, where the configuration declares this function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared: Option<String>,
    /// Deleted through the API although the configuration declares it: stays so until the entry there changes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

impl Document {
    /// An empty function of that name, submitted now.
    pub fn new(key: &Key, image: &str) -> Self {
        Self {
            version: VERSION,
            name: key.name.to_string(),
            namespace: key.namespace.to_string(),
            image: image.to_owned(),
            env_process: None,
            environment: BTreeMap::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            secrets: Vec::new(),
            constraints: Vec::new(),
            limits: None,
            requests: None,
            read_only_root_filesystem: false,
            created_at: timestamp::now_seconds(),
            revision: 1,
            replicas: 1,
            by_hand: false,
            declared: None,
            deleted: false,
        }
    }

    /// The function's full name; nothing when the document's names are not names.
    pub fn key(&self) -> Option<Key> {
        Key::new(&self.name, &self.namespace)
    }

    /// Identifies what an instance was made from (SHA-256, hex). Who declared it and how many run is no part of that.
    pub fn digest(&self) -> String {
        let made_from = Self { replicas: 0, by_hand: false, declared: None, deleted: false, ..self.clone() };
        // A struct of strings, numbers and maps with text keys always serialises.
        hex(&Sha256::digest(serde_json::to_vec(&made_from).unwrap_or_default()))
    }

    /// The same with as many instances as the version before it has, where that runs, else as many as there are at first:
    /// what rested is seen to work. Within what its labels allow.
    pub fn scaled_like(self, old: Option<&Self>) -> Self {
        let (scale, running) = (Scale::of(&self.labels), old.filter(|old| old.wants_instance()));
        Self {
            replicas: scale.clamp(running.map_or(scale.initial(), |old| old.replicas)),
            by_hand: running.is_some_and(|old| old.by_hand) && scale.load.is_some(),
            ..self
        }
    }

    /// Whether an instance should run.
    pub fn wants_instance(&self) -> bool {
        !self.deleted && self.replicas > 0
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_ignores_ownership_and_scale() {
        let key = Key::new("figlet", "").unwrap();
        let one = Document::new(&key, "localhost/figlet:latest");
        let scaled = Document { replicas: 0, by_hand: true, declared: Some("x".into()), ..one.clone() };
        assert_eq!(one.digest(), scaled.digest());
        let next = Document { revision: 2, ..one.clone() };
        assert_ne!(one.digest(), next.digest());
        assert_eq!(one.digest().len(), 64);
    }

    #[test]
    fn the_next_version_has_as_many_as_the_labels_allow() {
        let key = Key::new("f", "").unwrap();
        let label = |name: &str, value: &str| (format!("com.openfaas.scale.{name}"), value.to_owned());
        let mut new = Document::new(&key, "f:2");
        new.labels.extend([label("min", "2"), label("max", "4")]);
        let with = |old: Option<(u64, bool)>| {
            let old =
                old.map(|(replicas, by_hand)| Document { replicas, by_hand, ..Document::new(&key, "f:1") });
            let scaled = new.clone().scaled_like(old.as_ref());
            (scaled.replicas, scaled.by_hand)
        };
        for (old, wanted) in [
            (None, (2, false)),
            (Some((0, false)), (2, false)),
            (Some((1, false)), (2, false)),
            (Some((3, true)), (3, true)),
            (Some((9, false)), (4, false)),
        ] {
            assert_eq!(with(old), wanted, "{old:?}");
        }
    }

    #[test]
    fn round_trip() {
        let mut document = Document::new(&Key::new("f", "dev").unwrap(), "f:1");
        document.annotations.insert("topic".into(), "ä\"\n\u{1}".repeat(5000));
        let text = serde_json::to_string(&document).unwrap();
        assert_eq!(serde_json::from_str::<Document>(&text).unwrap(), document);
    }
}
