//! Bodies that are too large for a message: an object store of JetStream's.

use async_nats::jetstream::object_store::{Object, ObjectStore};
use tokio::io::AsyncRead;

use super::broker::Broker;
use crate::base64;

/// Larger bodies go into the store. Messages are read into memory whole, several at a time.
pub const LARGEST_INLINE_BYTES: usize = 128 << 10;

/// The store's name.
pub(super) const BUCKET: &str = "bodies";

/// The store.
pub struct Bodies {
    store: ObjectStore,
    broker: Broker,
}

impl Bodies {
    pub(super) fn new(store: ObjectStore, broker: Broker) -> Self {
        Self { store, broker }
    }

    /// Keeps a body under a name that is its own.
    ///
    /// # Errors
    /// It could not be read, or the store did not take it; in words.
    pub async fn put(&self, name: &str, body: &mut (impl AsyncRead + Unpin)) -> Result<u64, String> {
        match self.store.put(name, body).await {
            Ok(info) => Ok(info.size as u64),
            Err(error) => {
                // What is there of it is nobody's.
                self.remove(name).await;
                Err(causes(&error))
            }
        }
    }

    /// The body of that name; nothing where there is none.
    ///
    /// # Errors
    /// The store cannot be read; in words.
    pub async fn get(&self, name: &str) -> Result<Option<Object>, String> {
        use async_nats::jetstream::object_store::GetErrorKind;
        match self.store.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.kind() == GetErrorKind::NotFound => Ok(None),
            Err(error) => Err(causes(&error)),
        }
    }

    /// Removes a body; one that is not there is removed.
    pub async fn remove(&self, name: &str) {
        if let Err(error) = self.store.delete(name).await {
            tracing::debug!("removing the body {name}: {}", causes(&error));
        }
        // The store keeps a word about each that was removed, for ever.
        let subject = format!("$O.{BUCKET}.M.{}", base64::encode(name.as_bytes()));
        self.broker.purge(&format!("OBJ_{BUCKET}"), &subject).await;
    }
}

/// An error with what caused it, in one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text.push_str(&format!(": {words}"));
        }
        cause = next.source();
    }
    text
}
