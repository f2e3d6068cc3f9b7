//! Functions that the configuration declares.
//!
//! An entry is applied when it differs from the one applied last, whose digest the document keeps. What the API did
//! since stays, a deletion included. An entry that vanishes takes nothing along: the supervisor falls back to a
//! configuration without functions when the file is broken, and that must not delete them.

use std::collections::BTreeMap;

use provisioning::{Function, Resources};
use sha2::{Digest, Sha256};

use super::document::{Amounts, Document, hex};
use crate::key::Key;

/// The documents to write so that changed entries are applied.
pub fn apply(functions: &[Function], present: &BTreeMap<Key, Document>) -> Vec<(Key, Document)> {
    let mut changed = Vec::new();
    for function in functions {
        let key = Key { namespace: function.namespace.clone(), name: function.name.clone() };
        let entry = document(&key, function);
        let digest = fingerprint(&entry);
        let old = present.get(&key);
        if old.and_then(|old| old.declared.as_deref()) == Some(digest.as_str()) {
            continue;
        }
        let revision = old.map_or(1, |old| old.revision + 1);
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

/// What the entry says, whenever it was read.
fn fingerprint(entry: &Document) -> String {
    let timeless = Document { created_at: 0, ..entry.clone() };
    hex(&Sha256::digest(timeless.digest().as_bytes()))
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
    fn a_vanished_entry_changes_nothing() {
        let present: BTreeMap<_, _> =
            apply(&config("[functions.f]\nimage = \"f:1\"\n"), &BTreeMap::new()).into_iter().collect();
        assert_eq!(apply(&[], &present), []);
    }
}
