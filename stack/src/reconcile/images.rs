//! Which of the images in containerd are wanted, and when the others were.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use provisioning::Namespace;

use super::{Functions, World};
use crate::containerd::normalise;
use crate::desired::Document;
use crate::error::Result;
use crate::timestamp::now_micros;

/// Namespace and full reference.
type Name = (String, String);

/// Images of deployments under way: no document names them yet.
#[derive(Default)]
pub struct Holds(tokio::sync::Mutex<HashMap<Name, Weak<()>>>);

/// As long as it is there, an image stays.
pub struct Hold(#[expect(dead_code, reason = "counted while it lives")] Arc<()>);

impl Holds {
    /// Keeps an image from being removed.
    async fn hold(&self, name: Name) -> Hold {
        let mut holds = self.0.lock().await;
        holds.retain(|_, hold| hold.strong_count() > 0);
        let hold = holds.get(&name).and_then(Weak::upgrade).unwrap_or_default();
        holds.insert(name, Arc::downgrade(&hold));
        Hold(hold)
    }
}

/// The moments at which images are of use: each is later than all before it, also where the machine has no clock that goes
/// on without power.
#[derive(Default)]
pub struct Moments(AtomicU64);

impl Moments {
    /// Now, in microseconds since 1970; after the last one, whatever the clock says.
    fn next(&self) -> u64 {
        let now = now_micros();
        let after = |last: u64| now.max(last.saturating_add(1));
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(after(last)));
        // It never says no.
        after(before.unwrap_or_else(|last| last))
    }

    /// Takes note of one that a former life wrote down.
    pub(super) fn saw(&self, moment: u64) {
        self.0.fetch_max(moment, Ordering::Relaxed);
    }
}

impl World {
    /// Keeps the image of what is to be deployed from being removed.
    pub(super) async fn hold_image(&self, document: &Document) -> Hold {
        let reference = normalise(&document.image).unwrap_or_default();
        self.holds.hold((document.namespace.clone(), reference)).await
    }

    /// Writes down that an image is of use now. Where that cannot be done, it counts as older than it is.
    pub(super) async fn note_use(&self, namespace: &Namespace, image: &str) {
        let Some(reference) = normalise(image) else { return };
        let noted = self.containerd.note_use(namespace.as_str(), &reference, self.moments.next()).await;
        noted.unwrap_or_else(|error| tracing::warn!("when {reference} was last used is not noted: {error}"));
    }

    /// A function needs an image no more: perhaps it can go.
    pub(super) async fn let_image_go(&self, namespace: &Namespace, image: &str) {
        self.note_use(namespace, image).await;
        self.removed.notify_one();
    }

    /// Whether the appliance brought an image, or a document of its namespace names it.
    pub(super) fn is_named(&self, functions: &Functions, namespace: &str, reference: &str) -> bool {
        let brought = self.baked.iter().any(|layout| layout.reference == reference);
        brought
            || functions.all().iter().filter_map(|function| function.document()).any(|document| {
                document.namespace == namespace && normalise(&document.image).as_deref() == Some(reference)
            })
    }

    /// Takes an image that is not named, and that no deployment is about to name, out of containerd. Tells whether it
    /// could be taken.
    pub(super) async fn remove_unnamed(
        &self,
        functions: &Functions,
        namespace: &str,
        reference: &str,
    ) -> Result<bool> {
        // Held over the removal: who deploys it meanwhile waits, and does not find it.
        let holds = self.holds.0.lock().await;
        let held = holds.get(&(namespace.to_owned(), reference.to_owned()));
        let held = held.is_some_and(|hold| hold.strong_count() > 0);
        if held || self.is_named(functions, namespace, reference) {
            return Ok(false);
        }
        self.containerd.remove_name(namespace, reference).await.map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_image_is_held_by_each_of_those_who_deploy_it() {
        let holds = Holds::default();
        let name = ("n".to_owned(), "a:1".to_owned());
        let held = async || holds.0.lock().await.get(&name).is_some_and(|hold| hold.strong_count() > 0);
        let (one, two) = (holds.hold(name.clone()).await, holds.hold(name.clone()).await);
        drop(one);
        assert!(held().await);
        drop(two);
        assert!(!held().await);
        let _other = holds.hold(("n".to_owned(), "b:1".to_owned())).await;
        assert_eq!(holds.0.lock().await.len(), 1);
    }

    #[test]
    fn moments_only_grow() {
        let moments = Moments::default();
        let (first, second) = (moments.next(), moments.next());
        assert!(first < second);
        // Written when the clock was wrong.
        moments.saw(u64::MAX / 2);
        assert_eq!(moments.next(), u64::MAX / 2 + 1);
        moments.saw(first);
        assert_eq!(moments.next(), u64::MAX / 2 + 2);
    }
}
