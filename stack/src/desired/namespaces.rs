//! The namespaces that the API made: `STATE/namespaces/NAME.json`. containerd has them too, made again at every start;
//! what clients said of them does not fit there (a label has 4096 bytes at most) and lies here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use provisioning::Namespace;
use serde::{Deserialize, Serialize};

use super::document::VERSION;
use super::file;
use super::folder::{Unreadable, documents};
use crate::error::{Error, Result};

/// Label of a namespace that functions may be in: OpenFaaS's mark.
pub const MARK: &str = "openfaas";

/// Mode of a document before the umask.
const MODE: u32 = 0o666;

/// What is known of a namespace. Text is kept as submitted, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceDocument {
    version: u32,
    name: String,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl NamespaceDocument {
    /// A namespace of that name; it carries the mark.
    pub fn new(
        name: &Namespace,
        mut labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        labels.entry(MARK.to_owned()).or_insert_with(|| "1".to_owned());
        Self { version: VERSION, name: name.to_string(), labels, annotations }
    }
}

/// The documents, on disk and in memory. Clones share them.
#[derive(Debug, Clone)]
pub struct Namespaces {
    folder: PathBuf,
    known: Arc<RwLock<BTreeMap<Namespace, NamespaceDocument>>>,
}

impl Namespaces {
    /// Reads `STATE/namespaces`, which is made when it is first written to. One that cannot be read is as if it were empty,
    /// and told: functions run all the same.
    pub fn load(state: &Path) -> (Self, Vec<Unreadable>) {
        let folder = state.join("namespaces");
        let (found, unreadable) = documents(&folder, check).unwrap_or_else(|error| {
            let reason = format!("cannot be used: {error}");
            (Vec::new(), vec![Unreadable { path: folder.clone(), reason }])
        });
        let known = found.into_iter().filter_map(|document| Some((document.name.parse().ok()?, document)));
        let known = Arc::new(RwLock::new(known.collect()));
        (Self { folder, known }, unreadable)
    }

    /// Their names.
    pub fn names(&self) -> Vec<Namespace> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// What is known of one.
    pub fn get(&self, name: &Namespace) -> Option<NamespaceDocument> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Writes a document; when this returns it survives a power cut.
    pub fn put(&self, name: &Namespace, document: &NamespaceDocument) -> Result<()> {
        let text = serde_json::to_vec_pretty(document)
            .map_err(|source| Error::Parse { what: format!("the document of namespace {name}"), source })?;
        file::room(&self.folder, &format!("namespace {name}"), text.len())?;
        file::make_folder(&self.folder, 0o777)?;
        let path = self.path(name);
        file::replace(&path, &path.with_extension("new"), &text, MODE)?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(name.clone(), document.clone());
        Ok(())
    }

    /// Removes a document; one that is not there is fine.
    pub fn remove(&self, name: &Namespace) -> Result<()> {
        file::remove(&self.path(name))?;
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    fn path(&self, name: &Namespace) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }
}

fn check(path: &Path, document: &NamespaceDocument) -> Result<(), String> {
    if document.name.parse::<Namespace>().is_err() {
        return Err("holds a name that is none".into());
    }
    let own = path.file_stem().is_some_and(|stem| stem == document.name.as_str());
    if own { Ok(()) } else { Err(format!("holds the document of {}", document.name)) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn put_load_remove() {
        let state = tempfile::tempdir().unwrap();
        let (namespaces, _) = Namespaces::load(state.path());
        let name: Namespace = "dev".parse().unwrap();
        let long = BTreeMap::from([("note".to_owned(), "ä\"\n\u{1}".repeat(5000))]);
        let document = NamespaceDocument::new(&name, BTreeMap::new(), long);
        assert_eq!(document.labels[MARK], "1");
        namespaces.put(&name, &document).unwrap();
        let folder = state.path().join("namespaces");
        fs::write(folder.join("torn.new"), "{").unwrap();
        fs::write(folder.join("bad.json"), "{").unwrap();
        fs::copy(folder.join("dev.json"), folder.join("other.json")).unwrap();
        let (again, unreadable) = Namespaces::load(state.path());
        assert_eq!((again.get(&name), again.names()), (Some(document), vec![name.clone()]));
        assert_eq!(unreadable.len(), 2, "{unreadable:?}");
        assert!(!folder.join("torn.new").exists() && folder.join("bad.json.unreadable").exists());
        again.remove(&name).unwrap();
        again.remove(&name).unwrap();
        assert_eq!(again.get(&name), None);
        assert_eq!(Namespaces::load(state.path()).0.names(), []);
    }

    #[test]
    fn a_folder_that_is_none_stops_nobody() {
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join("namespaces"), "").unwrap();
        let (namespaces, unreadable) = Namespaces::load(state.path());
        assert_eq!((namespaces.names(), unreadable.len()), (Vec::new(), 1), "{unreadable:?}");
    }
}
