//! One function's document on its way to the disk: what was asked for last is written last.

use tokio::task::JoinHandle;

use crate::desired::{Document, Store, on_disk};
use crate::error::Result;
use crate::key::Key;

/// Writes a function's document.
#[derive(Default)]
pub struct Pen {
    /// A document that nobody waits for.
    behind: Option<JoinHandle<()>>,
}

impl Pen {
    /// Writes a document; when this returns it survives a power cut.
    pub async fn write(&mut self, store: &Store, key: &Key, document: &Document) -> Result<()> {
        self.settle().await;
        let (store, key, copy) = (store.clone(), key.clone(), document.clone());
        on_disk(move || store.put(&key, &copy)).await
    }

    /// Writes a document while something else is done. A failure is told and no more.
    pub fn write_behind(&mut self, store: &Store, key: &Key, document: &Document) {
        let (store, key, copy) = (store.clone(), key.clone(), document.clone());
        let before = self.behind.take();
        self.behind = Some(tokio::spawn(async move {
            if let Some(before) = before {
                // It has told its error itself.
                let _ = before.await;
            }
            if let Err(error) = on_disk(move || store.put(&key, &copy)).await {
                tracing::warn!("how many instances should run is not remembered: {error}");
            }
        }));
    }

    /// Removes the document.
    pub async fn remove(&mut self, store: &Store, key: &Key) -> Result<()> {
        self.settle().await;
        let (store, key) = (store.clone(), key.clone());
        on_disk(move || store.remove(&key)).await
    }

    async fn settle(&mut self) {
        if let Some(behind) = self.behind.take() {
            // It has told its error itself.
            let _ = behind.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_wish_is_what_stays() {
        let state = tempfile::tempdir().unwrap();
        let (store, key) = (Store::new(state.path()), Key::new("f", "").unwrap());
        let mut pen = Pen::default();
        for revision in 1..20 {
            pen.write_behind(&store, &key, &Document { revision, ..Document::new(&key, "f:1") });
        }
        pen.write(&store, &key, &Document { revision: 20, ..Document::new(&key, "f:1") }).await.unwrap();
        assert_eq!(store.load().unwrap().0[0].revision, 20);
        pen.write_behind(&store, &key, &Document::new(&key, "f:1"));
        pen.remove(&store, &key).await.unwrap();
        assert_eq!(store.load().unwrap().0, []);
    }
}
