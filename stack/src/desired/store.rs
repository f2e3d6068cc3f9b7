//! The documents of functions: `STATE/functions/NAMESPACE/NAME.json`.

use std::fs;
use std::path::{Path, PathBuf};

use provisioning::Namespace;

use super::document::Document;
use super::file::{self, entries};
use super::folder::{Unreadable, closed, documents};
use crate::error::{Error, Result};
use crate::key::Key;

/// Mode of a document before the umask: nothing in it is secret.
const MODE: u32 = 0o666;

/// The folder of documents.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Uses `STATE/functions`, which is made when it is first written to.
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join("functions") }
    }

    /// All documents. Leftovers of an interrupted write are removed.
    pub fn load(&self) -> Result<(Vec<Document>, Vec<Unreadable>)> {
        let (mut all, mut unreadable) = (Vec::new(), Vec::new());
        for namespace in entries(&self.folder)? {
            if namespace.is_dir() {
                let (found, bad) = documents(&namespace, check)?;
                all.extend(found);
                unreadable.extend(bad);
            }
        }
        Ok((all, unreadable))
    }

    /// A document that may be good and cannot be read, if there is one: the disk did not give it, or a newer program wrote it.
    pub fn closed(&self) -> Result<Option<Unreadable>> {
        for namespace in entries(&self.folder)? {
            if namespace.is_dir()
                && let Some(bad) = closed(&namespace, check)?
            {
                return Ok(Some(bad));
            }
        }
        Ok(None)
    }

    /// Writes a document; when this returns it survives a power cut.
    pub fn put(&self, key: &Key, document: &Document) -> Result<()> {
        let path = self.path(key);
        file::make_folder(&self.folder.join(key.namespace.as_str()), 0o777)?;
        let text = serde_json::to_vec_pretty(document)
            .map_err(|source| Error::Parse { what: format!("the document of {key}"), source })?;
        file::replace(&path, &path.with_extension("new"), &text, MODE)
    }

    /// Removes a document; one that is not there is fine.
    pub fn remove(&self, key: &Key) -> Result<()> {
        file::remove(&self.path(key)).map(drop)
    }

    /// Removes the folder of a namespace that has no documents any more; one that is not empty stays.
    pub fn forget(&self, namespace: &Namespace) {
        let _ = fs::remove_dir(self.folder.join(namespace.as_str()));
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(key.namespace.as_str()).join(format!("{}.json", key.name))
    }
}

fn check(path: &Path, document: &Document) -> Result<(), String> {
    let Some(key) = document.key() else { return Err("holds a name that is none".into()) };
    let place = Path::new(key.namespace.as_str()).join(format!("{}.json", key.name));
    if path.ends_with(&place) { Ok(()) } else { Err(format!("holds the document of {key}")) }
}

#[cfg(test)]
mod tests {
    use super::super::document::VERSION;
    use super::*;

    fn key(name: &str) -> Key {
        Key::new(name, "").unwrap()
    }

    #[test]
    fn put_load_remove() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::new(state.path());
        assert_eq!(store.load().unwrap().0, []);
        let document = Document::new(&key("a"), "a:1");
        store.put(&key("a"), &document).unwrap();
        store.put(&key("b"), &Document::new(&key("b"), "b:1")).unwrap();
        store.remove(&key("b")).unwrap();
        store.remove(&key("b")).unwrap();
        store.forget(&key("a").namespace);
        assert_eq!(store.load().unwrap(), (vec![document], vec![]));
    }

    #[test]
    fn a_crash_between_the_steps_leaves_the_old_document() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::new(state.path());
        let document = Document::new(&key("a"), "a:1");
        store.put(&key("a"), &document).unwrap();
        let torn = state.path().join("functions/openfaas-fn/a.new");
        fs::write(&torn, b"{\"version\":1,\"na").unwrap();
        assert_eq!(store.load().unwrap(), (vec![document], vec![]));
        assert!(!torn.exists());
    }

    #[test]
    fn a_closed_document_is_found_and_nothing_is_changed() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::new(state.path());
        assert_eq!(store.closed().unwrap(), None);
        store.put(&key("a"), &Document::new(&key("a"), "a:1")).unwrap();
        let folder = state.path().join("functions/openfaas-fn");
        // One that is being written, and one that is none.
        fs::write(folder.join("b.new"), b"{").unwrap();
        fs::write(folder.join("c.json"), b"{").unwrap();
        assert_eq!(store.closed().unwrap(), None);
        fs::write(folder.join("d.json"), format!(r#"{{"version": {}}}"#, VERSION + 1)).unwrap();
        assert_eq!(store.closed().unwrap().unwrap().path, folder.join("d.json"));
        assert_eq!(entries(&folder).unwrap().len(), 4);
    }

    #[test]
    fn bad_documents_are_kept_aside() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::new(state.path());
        store.put(&key("good"), &Document::new(&key("good"), "a:1")).unwrap();
        let folder = state.path().join("functions/openfaas-fn");
        fs::write(folder.join("empty.json"), b"").unwrap();
        fs::write(folder.join("torn.json"), b"{\"version\":1,").unwrap();
        fs::copy(folder.join("good.json"), folder.join("other.json")).unwrap();
        let mut future = Document::new(&key("future"), "a:1");
        future.version = VERSION + 1;
        store.put(&key("future"), &future).unwrap();
        let (documents, unreadable) = store.load().unwrap();
        assert_eq!(documents.len(), 1);
        let names: Vec<_> =
            unreadable.iter().map(|u| u.path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(
            names,
            ["empty.json.unreadable", "future.json", "other.json.unreadable", "torn.json.unreadable"]
        );
        // The newer one waits for a program that knows it.
        assert_eq!(store.load().unwrap().1.len(), 1);
    }

    #[test]
    fn what_the_disk_does_not_give_stays_where_it_is() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::new(state.path());
        store.put(&key("good"), &Document::new(&key("good"), "a:1")).unwrap();
        let folder = state.path().join("functions/openfaas-fn");
        // A folder gives no text and does not go like a file.
        for name in ["odd.json", "odd.new"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        let (documents, unreadable) = store.load().unwrap();
        assert_eq!((documents.len(), unreadable.len()), (1, 2), "{unreadable:?}");
        assert!(folder.join("odd.json").exists());
    }
}
