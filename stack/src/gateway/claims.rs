//! What requests under way count on, and what others are removing: a deployment takes seconds, and its namespace and its
//! secrets must be there when it is done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use provisioning::Namespace;

/// The claims of all requests.
#[derive(Debug, Default)]
pub struct Claims(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    number: u64,
    claims: BTreeMap<u64, Claim>,
}

#[derive(Debug)]
struct Claim {
    namespace: Namespace,
    act: Act,
}

#[derive(Debug)]
enum Act {
    /// Counts on the namespace and on these secrets in it.
    Use { who: String, secrets: Vec<String> },
    /// Removes that secret.
    RemoveSecret(String),
    /// Removes the namespace.
    RemoveNamespace,
}

/// What is being removed.
#[derive(Debug, PartialEq, Eq)]
pub enum Going {
    /// The namespace.
    Namespace,
    /// That secret.
    Secret(String),
}

/// A claim, until it is dropped.
#[derive(Debug)]
pub struct Held {
    claims: Arc<Claims>,
    number: u64,
}

impl Claims {
    /// Counts on a namespace and on secrets in it. Whether they are there is looked at afterwards: from now on they stay.
    pub fn count_on(
        self: &Arc<Self>,
        namespace: &Namespace,
        secrets: &[String],
        who: String,
    ) -> Result<Held, Going> {
        self.enter(namespace, Act::Use { who, secrets: secrets.to_vec() }, |claims| {
            for claim in claims {
                match &claim.act {
                    Act::RemoveNamespace => return Err(Going::Namespace),
                    Act::RemoveSecret(name) if secrets.contains(name) => {
                        return Err(Going::Secret(name.clone()));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
    }

    /// Begins to remove a secret, unless somebody uses it; `users` are those that need no request for it.
    pub fn remove_secret(
        self: &Arc<Self>,
        namespace: &Namespace,
        name: &str,
        users: impl FnOnce() -> Vec<String>,
    ) -> Result<Held, Vec<String>> {
        let uses = |secrets: &[String]| secrets.iter().any(|secret| secret == name);
        self.enter(namespace, Act::RemoveSecret(name.to_owned()), |claims| unused(users(), claims, uses))
    }

    /// Begins to remove a namespace, unless somebody uses it.
    pub fn remove_namespace(
        self: &Arc<Self>,
        namespace: &Namespace,
        users: impl FnOnce() -> Vec<String>,
    ) -> Result<Held, Vec<String>> {
        self.enter(namespace, Act::RemoveNamespace, |claims| unused(users(), claims, |_| true))
    }

    fn enter<E>(
        self: &Arc<Self>,
        namespace: &Namespace,
        act: Act,
        check: impl FnOnce(&[&Claim]) -> Result<(), E>,
    ) -> Result<Held, E> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same: Vec<_> = state.claims.values().filter(|claim| claim.namespace == *namespace).collect();
        check(&same)?;
        state.number += 1;
        let number = state.number;
        state.claims.insert(number, Claim { namespace: namespace.clone(), act });
        Ok(Held { claims: self.clone(), number })
    }
}

fn unused(
    mut users: Vec<String>,
    claims: &[&Claim],
    counts: impl Fn(&[String]) -> bool,
) -> Result<(), Vec<String>> {
    for claim in claims {
        if let Act::Use { who, secrets } = &claim.act
            && counts(secrets)
        {
            users.push(who.clone());
        }
    }
    users.sort();
    // A function that is being updated is there twice.
    users.dedup();
    if users.is_empty() { Ok(()) } else { Err(users) }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.claims.0.lock().unwrap_or_else(PoisonError::into_inner).claims.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_what_goes_is_not_used() {
        let claims = Arc::new(Claims::default());
        let (dev, other): (Namespace, Namespace) = ("dev".parse().unwrap(), "other".parse().unwrap());
        let key = ["key".to_owned()];
        let deploying = claims.count_on(&dev, &key, "f.dev".into()).unwrap();
        assert_eq!(claims.remove_secret(&dev, "key", Vec::new).unwrap_err(), ["f.dev"]);
        let twice = || vec!["f.dev".to_owned(), "a.dev".to_owned()];
        assert_eq!(claims.remove_secret(&dev, "key", twice).unwrap_err(), ["a.dev", "f.dev"]);
        assert_eq!(claims.remove_namespace(&dev, Vec::new).unwrap_err(), ["f.dev"]);
        drop(claims.remove_secret(&dev, "another", Vec::new).unwrap());
        drop(claims.remove_secret(&other, "key", Vec::new).unwrap());
        drop(deploying);

        let going = claims.remove_secret(&dev, "key", Vec::new).unwrap();
        assert_eq!(claims.count_on(&dev, &key, "f.dev".into()).unwrap_err(), Going::Secret("key".into()));
        drop(claims.count_on(&dev, &[], "f.dev".into()).unwrap());
        drop(going);
        let going = claims.remove_namespace(&dev, Vec::new).unwrap();
        assert_eq!(claims.count_on(&dev, &[], "f.dev".into()).unwrap_err(), Going::Namespace);
        drop(claims.count_on(&other, &key, "f.other".into()).unwrap());
        drop(going);
        drop(claims.count_on(&dev, &key, "f.dev".into()).unwrap());
        assert!(claims.0.lock().unwrap().claims.is_empty());
    }
}
