//! Namespaces in the API's JSON.

use provisioning::Namespace;

use crate::desired::{MARK, NamespaceDocument};
use crate::gateway::router::Act;
use crate::gateway::wire::{FunctionNamespace, check_namespace, is_marked, parse};

pub fn check(data: &[u8]) {
    let Ok(body) = parse::<FunctionNamespace>(data) else { return };
    let marked = is_marked(body.labels.get(MARK)) || is_marked(body.annotations.get(MARK));
    for path in ["", "dev", body.name.as_str()] {
        let wrong = |act| check_namespace(&body, path, act).is_err();
        let named = !body.name.is_empty() && (path.is_empty() || path == body.name);
        assert_eq!(wrong(Act::Create), !(named && marked));
        assert_eq!(wrong(Act::Replace), !(named && marked));
        assert_eq!(wrong(Act::Remove), !named);
    }
    // What is shown can be sent back.
    let shown = serde_json::to_vec(&body).unwrap();
    let again: FunctionNamespace = parse(shown.as_slice()).unwrap();
    let all = |body: &FunctionNamespace| (body.name.clone(), body.labels.clone(), body.annotations.clone());
    assert_eq!(all(&again), all(&body));
    // What is kept has the mark, and what was submitted.
    if let Ok(name) = body.name.parse::<Namespace>() {
        let document = NamespaceDocument::new(&name, body.labels.clone(), body.annotations.clone());
        assert!(document.labels.contains_key(MARK));
        assert!(body.labels.iter().all(|(name, value)| document.labels.get(name) == Some(value)));
        let kept = serde_json::from_slice(&serde_json::to_vec(&document).unwrap());
        assert_eq!(kept.ok(), Some(document));
    }
}
