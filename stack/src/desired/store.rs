//! The documents on disk: `STATE/functions/NAMESPACE/NAME.json`.
//!
//! A document is written beside its place, synced, renamed over the old one, and the folder is synced: whoever reads
//! after a power cut finds the old text or the new, never a part. What is no document is moved aside, not deleted and
//! not fatal: one bad file must not take the other functions along. What may be a good one (the disk did not give it, or
//! a newer program wrote it) stays in its place and is told.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::document::{Document, VERSION};
use crate::error::{Error, Result};
use crate::key::Key;

/// The folder of documents.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// A document that could not be used, and where it lies now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Where it is: in its place, or beside it under another name.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl Store {
    /// Uses `STATE/functions`, which is made when it is first written to.
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join("functions") }
    }

    /// All documents. Leftovers of an interrupted write are removed.
    pub fn load(&self) -> Result<(Vec<Document>, Vec<Unreadable>)> {
        let (mut documents, mut unreadable) = (Vec::new(), Vec::new());
        for namespace in entries(&self.folder)? {
            if !namespace.is_dir() {
                continue;
            }
            for path in entries(&namespace)? {
                match path.extension().and_then(|e| e.to_str()) {
                    Some("new") => {
                        if let Err(error) = fs::remove_file(&path) {
                            let reason = format!("is left of an interrupted write and stays: {error}");
                            unreadable.push(Unreadable { path, reason });
                        }
                    }
                    Some("json") => match read(&path) {
                        Found::Good(document) => documents.push(*document),
                        Found::Closed(reason) => unreadable.push(Unreadable { path, reason }),
                        Found::Wrong(reason) => unreadable.push(set_aside(path, reason)),
                    },
                    _ => {}
                }
            }
        }
        Ok((documents, unreadable))
    }

    /// Writes a document; when this returns it survives a power cut.
    pub fn put(&self, key: &Key, document: &Document) -> Result<()> {
        let path = self.path(key);
        let folder = self.folder.join(key.namespace.as_str());
        let made = !folder.exists();
        fs::create_dir_all(&folder).map_err(|source| Error::Write { path: folder.clone(), source })?;
        if made {
            for parent in folder.ancestors().skip(1).take(3) {
                sync(parent)?;
            }
        }
        let new = path.with_extension("new");
        let text = serde_json::to_vec_pretty(document)
            .map_err(|source| Error::Parse { what: format!("the document of {key}"), source })?;
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        if let Err(source) = write() {
            // On a full disk the part that was written is in the way of everybody.
            let _ = fs::remove_file(&new);
            return Err(Error::Write { path, source });
        }
        sync(&folder)
    }

    /// Removes a document; one that is not there is fine.
    pub fn remove(&self, key: &Key) -> Result<()> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Ok(()) => sync(&self.folder.join(key.namespace.as_str())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(source) => Err(Error::Write { path, source }),
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(key.namespace.as_str()).join(format!("{}.json", key.name))
    }
}

/// A folder's entries in the order of their names; a folder that is not there is empty.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = |source| Error::Read { path: folder.to_owned(), source };
    let list = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(read)?,
    };
    let mut paths = list.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(read)?;
    paths.sort();
    Ok(paths)
}

/// What a file is.
enum Found {
    /// A document.
    Good(Box<Document>),
    /// Perhaps one, but not for us or not now.
    Closed(String),
    /// None.
    Wrong(String),
}

/// What every version of a document has.
#[derive(serde::Deserialize)]
struct Versioned {
    version: u32,
}

fn read(path: &Path) -> Found {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => return Found::Closed(format!("cannot be read: {error}")),
    };
    match serde_json::from_slice::<Versioned>(&text) {
        Ok(Versioned { version }) if version > VERSION => {
            return Found::Closed(format!("is of version {version}, this program knows {VERSION}"));
        }
        _ => {}
    }
    let document: Document = match serde_json::from_slice(&text) {
        Ok(document) => document,
        Err(error) => return Found::Wrong(format!("is no document: {error}")),
    };
    let Some(key) = document.key() else { return Found::Wrong("holds a name that is none".into()) };
    let place = Path::new(key.namespace.as_str()).join(format!("{}.json", key.name));
    if path.ends_with(&place) {
        Found::Good(Box::new(document))
    } else {
        Found::Wrong(format!("holds the document of {key}"))
    }
}

fn set_aside(path: PathBuf, reason: String) -> Unreadable {
    let aside = path.with_extension("json.unreadable");
    let path = if fs::rename(&path, &aside).is_ok() { aside } else { path };
    Unreadable { path, reason }
}

fn sync(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(|source| Error::Write { path: folder.to_owned(), source })
}

#[cfg(test)]
mod tests {
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
