//! Which of the images in containerd are wanted, and the end of the others.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use provisioning::Namespace;

use super::{Functions, World};
use crate::containerd::normalise;
use crate::desired::Document;
use crate::error::Result;

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

impl World {
    /// Keeps the image of what is to be deployed from being removed.
    pub(super) async fn hold_image(&self, document: &Document) -> Hold {
        let reference = normalise(&document.image).unwrap_or_default();
        self.holds.hold((document.namespace.clone(), reference)).await
    }

    /// Removes an image that nobody needs any more: no document of its namespace names it, no deployment is about to, and
    /// the appliance did not bring it. What cannot be removed now is found at the next start.
    pub(super) async fn drop_image(&self, functions: &Functions, namespace: &Namespace, image: &str) {
        let Some(reference) = normalise(image) else { return };
        if let Err(error) = self.drop_reference(functions, namespace.as_str(), &reference).await {
            tracing::warn!("the image {reference} stays until the next start: {error}");
        }
    }

    pub(super) async fn drop_reference(
        &self,
        functions: &Functions,
        namespace: &str,
        reference: &str,
    ) -> Result<()> {
        // Held over the removal: who deploys it meanwhile waits, and does not find it.
        let holds = self.holds.0.lock().await;
        let held = holds.get(&(namespace.to_owned(), reference.to_owned()));
        let held = held.is_some_and(|hold| hold.strong_count() > 0);
        let brought = self.baked.iter().any(|layout| layout.reference == reference);
        let named = functions.all().iter().filter_map(|function| function.document()).any(|document| {
            document.namespace == namespace && normalise(&document.image).as_deref() == Some(reference)
        });
        if held || brought || named {
            return Ok(());
        }
        self.containerd.remove_name(namespace, reference).await?;
        tracing::debug!("nobody in {namespace} needs {reference} any more");
        self.removed.notify_one();
        Ok(())
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
}
