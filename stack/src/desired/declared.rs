//! Functions that the configuration declares.
//!
//! An entry is applied when it differs from the one applied last, whose digest the document keeps. What the API did
//! since stays, a deletion included. An entry that vanishes takes nothing along: the supervisor falls back to a
//! configuration without functions when the file is broken, and that must not delete them.

use std::collections::BTreeMap;

use provisioning::{Function, Resources};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::document::{Amounts, Document, hex};
use crate::key::Key;

/// The documents to write so that changed entries are applied.
pub fn apply(functions: &[Function], present: &BTreeMap<Key, Document>) -> Vec<(Key, Document)> {
    let mut changed = Vec::new();
    for function in functions {
        let key = Key { namespace: function.namespace.clone(), name: function.name.clone() };
        let digest = fingerprint(&key, function);
        let old = present.get(&key);
        if old.and_then(|old| old.declared.as_deref()) == Some(digest.as_str()) {
            continue;
        }
        let revision = old.map_or(1, |old| old.revision + 1);
        let entry = document(&key, function).scaled_like(old);
        changed.push((key, Document { declared: Some(digest), revision, ..entry }));
    }
    changed
}

fn document(key: &Key, function: &Function) -> Document {
    Document {
        env_process: function.env_process.clone(),
        environment: function.environment.clone(),
        labels: function.labels.clone(),
        annotations: function.annotations.clone(),
        secrets: function.secrets.clone(),
        constraints: function.constraints.clone(),
        limits: amounts(&function.limits),
        requests: amounts(&function.requests),
        read_only_root_filesystem: function.read_only_root_filesystem,
        ..Document::new(key, &function.image)
    }
}

fn amounts(resources: &Resources) -> Option<Amounts> {
    let amounts = Amounts {
        memory: resources.memory.as_ref().map(ToString::to_string),
        cpu: resources.cpu.as_ref().map(ToString::to_string),
    };
    (amounts != Amounts::default()).then_some(amounts)
}

/// What an entry says, in a form of its own: the digest lies in documents for years, and must not change when a document
/// gets a field more. A field that is added here is left out while it says nothing.
#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    namespace: &'a str,
    image: &'a str,
    env_process: Option<&'a str>,
    environment: &'a BTreeMap<String, String>,
    labels: &'a BTreeMap<String, String>,
    annotations: &'a BTreeMap<String, String>,
    secrets: &'a [String],
    constraints: &'a [String],
    limits: [Option<String>; 2],
    requests: [Option<String>; 2],
    read_only_root_filesystem: bool,
}

/// Digest of what an entry says (SHA-256, hex).
fn fingerprint(key: &Key, function: &Function) -> String {
    let both = |resources: &Resources| {
        [resources.memory.as_ref().map(ToString::to_string), resources.cpu.as_ref().map(ToString::to_string)]
    };
    let entry = Entry {
        name: key.name.as_str(),
        namespace: key.namespace.as_str(),
        image: &function.image,
        env_process: function.env_process.as_deref(),
        environment: &function.environment,
        labels: &function.labels,
        annotations: &function.annotations,
        secrets: &function.secrets,
        constraints: &function.constraints,
        limits: both(&function.limits),
        requests: both(&function.requests),
        read_only_root_filesystem: function.read_only_root_filesystem,
    };
    // Strings, lists and maps with text keys always serialise.
    hex(&Sha256::digest(serde_json::to_vec(&entry).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Vec<Function> {
        provisioning::parse(&format!("version = 1\n{text}"), "test").unwrap().functions
    }

    #[test]
    fn applied_once_and_again_when_it_changes() {
        let first = config("[functions.figlet]\nimage = \"localhost/figlet:latest\"\n");
        let mut present = BTreeMap::new();
        let changed = apply(&first, &present);
        assert_eq!(changed.len(), 1);
        present.extend(changed);
        assert_eq!(apply(&first, &present), []);

        // The API updates, then deletes it: both stay.
        let key = Key::new("figlet", "").unwrap();
        let document = present.get_mut(&key).unwrap();
        document.image = "other:1".into();
        assert_eq!(apply(&first, &present), []);
        present.get_mut(&key).unwrap().deleted = true;
        assert_eq!(apply(&first, &present), []);

        // The entry changes: it wins again, the deletion is over.
        let second = config("[functions.figlet]\nimage = \"localhost/figlet:2\"\n");
        let changed = apply(&second, &present);
        assert_eq!(changed.len(), 1);
        assert!(!changed[0].1.deleted);
        assert_eq!(changed[0].1.image, "localhost/figlet:2");
        assert_eq!(changed[0].1.revision, 2);
    }

    #[test]
    fn as_many_run_as_the_labels_want() {
        let entry = |min: u64| {
            config(&format!(
                "[functions.f]\nimage = \"f:1\"\nlabels = {{\"com.openfaas.scale.min\" = \"{min}\"}}\n"
            ))
        };
        let mut present: BTreeMap<_, _> = apply(&entry(2), &BTreeMap::new()).into_iter().collect();
        let key = Key::new("f", "").unwrap();
        assert_eq!(present[&key].replicas, 2);
        // A changed entry is as an update is: what runs keeps its number, what rested begins.
        for (now, deleted, wanted) in [(5, false, 5), (1, false, 3), (0, false, 3), (5, true, 3)] {
            let document = present.get_mut(&key).unwrap();
            (document.replicas, document.deleted) = (now, deleted);
            assert_eq!(apply(&entry(3), &present)[0].1.replicas, wanted, "{now} {deleted}");
        }
    }

    #[test]
    fn a_vanished_entry_changes_nothing() {
        let present: BTreeMap<_, _> =
            apply(&config("[functions.f]\nimage = \"f:1\"\n"), &BTreeMap::new()).into_iter().collect();
        assert_eq!(apply(&[], &present), []);
    }

    #[test]
    fn the_fingerprint_of_an_entry_never_changes() {
        let text = "[functions.f]\nimage = \"f:1\"\nenv_process = \"cat\"\nsecrets = [\"k\"]\nconstraints = [\"c\"]\n\
                    read_only_root_filesystem = true\n[functions.f.environment]\na = \"b\"\n[functions.f.labels]\n\
                    l = \"1\"\n[functions.f.annotations]\nt = \"2\"\n[functions.f.limits]\nmemory = \"64Mi\"\n";
        let found = apply(&config(text), &BTreeMap::new());
        assert_eq!(
            found[0].1.declared.as_deref(),
            Some("c10d7c8b366522d2fd1c79b3bfe49afb03d7ec6ad198d67cf3a5699dcf75da01")
        );
    }
}
