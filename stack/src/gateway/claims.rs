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
    Use { who: Who, secrets: Vec<String> },
    /// Removes that secret.
    RemoveSecret(String),
    /// Removes the namespace.
    RemoveNamespace,
}

/// Who counts on something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A function of that name, which is being deployed.
    Function(String),
    /// A request that does what this says.
    Request(String),
}

/// Who keeps something from being removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Functions, those that are being deployed among them.
    pub functions: Vec<String>,
    /// What other requests are doing.
    pub requests: Vec<String>,
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
        who: Who,
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

    /// Begins to remove a secret, unless a request needs it that is under way.
    pub fn remove_secret(self: &Arc<Self>, namespace: &Namespace, name: &str) -> Result<Held, Used> {
        let uses = |secrets: &[String]| secrets.iter().any(|secret| secret == name);
        self.enter(namespace, Act::RemoveSecret(name.to_owned()), |claims| unused(Vec::new(), claims, uses))
    }

    /// Begins to remove a namespace, unless somebody uses it; `users` are the functions that need no request for it.
    pub fn remove_namespace(
        self: &Arc<Self>,
        namespace: &Namespace,
        users: impl FnOnce() -> Vec<String>,
    ) -> Result<Held, Used> {
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

fn unused(functions: Vec<String>, claims: &[&Claim], counts: impl Fn(&[String]) -> bool) -> Result<(), Used> {
    let mut used = Used { functions, ..Used::default() };
    for claim in claims {
        match &claim.act {
            Act::Use { who: Who::Function(name), secrets } if counts(secrets) => {
                used.functions.push(name.clone());
            }
            Act::Use { who: Who::Request(what), secrets } if counts(secrets) => {
                used.requests.push(what.clone());
            }
            _ => {}
        }
    }
    for list in [&mut used.functions, &mut used.requests] {
        list.sort();
        // A function that is being updated is there twice.
        list.dedup();
    }
    if used == Used::default() { Ok(()) } else { Err(used) }
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
        let (key, f) = (["key".to_owned()], || Who::Function("f.dev".into()));
        let used = |functions: &[&str], requests: &[&str]| {
            let [functions, requests] =
                [functions, requests].map(|list| list.iter().map(|text| (*text).to_owned()).collect());
            Used { functions, requests }
        };
        let deploying = claims.count_on(&dev, &key, f()).unwrap();
        assert_eq!(claims.remove_secret(&dev, "key").unwrap_err(), used(&["f.dev"], &[]));
        let twice = || vec!["f.dev".to_owned(), "a.dev".to_owned()];
        assert_eq!(claims.remove_namespace(&dev, twice).unwrap_err(), used(&["a.dev", "f.dev"], &[]));
        drop(claims.remove_secret(&dev, "another").unwrap());
        drop(claims.remove_secret(&other, "key").unwrap());
        drop(deploying);
        let changing = claims.count_on(&dev, &[], Who::Request("a request".into())).unwrap();
        assert_eq!(claims.remove_namespace(&dev, Vec::new).unwrap_err(), used(&[], &["a request"]));
        drop(changing);

        let going = claims.remove_secret(&dev, "key").unwrap();
        assert_eq!(claims.count_on(&dev, &key, f()).unwrap_err(), Going::Secret("key".into()));
        drop(claims.count_on(&dev, &[], f()).unwrap());
        drop(going);
        let going = claims.remove_namespace(&dev, Vec::new).unwrap();
        assert_eq!(claims.count_on(&dev, &[], f()).unwrap_err(), Going::Namespace);
        drop(claims.count_on(&other, &key, f()).unwrap());
        drop(going);
        drop(claims.count_on(&dev, &key, f()).unwrap());
        assert!(claims.0.lock().unwrap().claims.is_empty());
    }
}
