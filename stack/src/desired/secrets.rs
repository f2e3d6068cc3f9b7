//! Secrets: `STATE/secrets/NAMESPACE/NAME`, a file with the value and nothing else, for root alone.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use provisioning::Namespace;

use super::file::{self, entries};
use crate::error::{Error, Result};

/// Largest value that is kept: a function's copy of it lies in memory. Kubernetes has the same limit.
pub const LARGEST_SECRET_BYTES: usize = 1 << 20;

/// Longest name: a file's, with room for what is put behind it.
const LONGEST_NAME: usize = 253;

/// Name of a file that is being written: no secret's, for the tilde.
const NEW: &str = "~new";

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// A secret's name, which is a file's: letters, digits, `-`, `_` and `.`, at most 253, and no two dots in a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretName(String);

/// Why a text is no secret's name. The first two texts are part of OpenFaaS's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing, or only blanks.
    #[error("non-empty name is required")]
    Empty,
    /// It would lead to another folder.
    #[error("directory traversal found in name")]
    Traversal,
    /// It has other characters, or too many.
    #[error("a secret's name has letters, digits, \"-\", \"_\" and \".\", at most 253")]
    Characters,
}

impl FromStr for SecretName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if text.trim().is_empty() {
            Err(BadName::Empty)
        } else if text.contains('/') || text.contains("..") {
            Err(BadName::Traversal)
        } else if text.len() > LONGEST_NAME || text == "." || !text.bytes().all(fits) {
            Err(BadName::Characters)
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl SecretName {
    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The folder of secrets. Clones share it.
#[derive(Debug, Clone)]
pub struct Secrets {
    folder: PathBuf,
    /// Held while something is written: what is there must not change between a look and the act.
    writing: Arc<Mutex<()>>,
}

impl Secrets {
    /// Uses `STATE/secrets`.
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join("secrets"), writing: Arc::default() }
    }

    /// Makes the folder, closes it to everybody else, and removes what interrupted writes left.
    pub fn prepare(&self) -> Result<()> {
        let closed = |folder: &Path| {
            fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE))
                .map_err(|source| Error::Write { path: folder.to_owned(), source })
        };
        file::make_folder(&self.folder, FOLDER_MODE)?;
        closed(&self.folder)?;
        for folder in entries(&self.folder)? {
            if folder.is_dir() {
                closed(&folder)?;
                file::remove(&folder.join(NEW))?;
            }
        }
        Ok(())
    }

    /// The secrets of a namespace by name.
    pub fn list(&self, namespace: &Namespace) -> Result<Vec<SecretName>> {
        let named = |path: PathBuf| path.file_name()?.to_str()?.parse().ok().filter(|_| path.is_file());
        Ok(entries(&self.folder.join(namespace.as_str()))?.into_iter().filter_map(named).collect())
    }

    /// Whether there is such a secret.
    pub fn has(&self, namespace: &Namespace, name: &SecretName) -> bool {
        self.path(namespace, name).is_file()
    }

    /// How many bytes a secret has; none where it is not there.
    pub fn size(&self, namespace: &Namespace, name: &SecretName) -> Result<usize> {
        let path = self.path(namespace, name);
        match fs::metadata(&path) {
            Ok(found) => Ok(usize::try_from(found.len()).unwrap_or(usize::MAX)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// A secret's value; nothing where there is none.
    pub fn read(&self, namespace: &Namespace, name: &SecretName) -> Result<Option<Vec<u8>>> {
        let path = self.path(namespace, name);
        match fs::read(&path) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// Writes a secret if `wanted` says so of whether it is there already, and tells whether it did. When this returns
    /// it survives a power cut.
    pub fn put(
        &self,
        namespace: &Namespace,
        name: &SecretName,
        value: &[u8],
        wanted: impl FnOnce(bool) -> bool,
    ) -> Result<bool> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !wanted(self.has(namespace, name)) {
            return Ok(false);
        }
        let folder = self.folder.join(namespace.as_str());
        file::room(&folder, &format!("secret {name}"), value.len())?;
        file::make_folder(&folder, FOLDER_MODE)?;
        file::replace(&self.path(namespace, name), &folder.join(NEW), value, FILE_MODE)?;
        Ok(true)
    }

    /// Removes a secret; tells whether there was one.
    pub fn remove(&self, namespace: &Namespace, name: &SecretName) -> Result<bool> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        file::remove(&self.path(namespace, name))
    }

    /// Removes all secrets of a namespace.
    pub fn clear(&self, namespace: &Namespace) -> Result<()> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.folder.join(namespace.as_str());
        match fs::remove_dir_all(&folder) {
            Ok(()) => file::sync(&self.folder),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(source) => Err(Error::Write { path: folder, source }),
        }
    }

    fn path(&self, namespace: &Namespace, name: &SecretName) -> PathBuf {
        self.folder.join(namespace.as_str()).join(name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SecretName {
        text.parse().unwrap()
    }

    #[test]
    fn names() {
        for good in ["a", "api-key", "TLS_1.crt", ".hidden", "a.new", &"x".repeat(253)] {
            assert_eq!(good.parse::<SecretName>().unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", BadName::Empty),
            (" \n", BadName::Empty),
            ("a/b", BadName::Traversal),
            ("..", BadName::Traversal),
            ("a..b", BadName::Traversal),
            (".", BadName::Characters),
            ("a b", BadName::Characters),
            ("~new", BadName::Characters),
            ("ä", BadName::Characters),
            ("a\0", BadName::Characters),
            (&"x".repeat(254), BadName::Characters),
        ] {
            assert_eq!(bad.parse::<SecretName>(), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn put_read_list_remove() {
        let state = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(state.path());
        let (dev, other): (Namespace, Namespace) = ("dev".parse().unwrap(), "other".parse().unwrap());
        secrets.prepare().unwrap();
        assert_eq!(secrets.list(&dev).unwrap(), []);
        assert!(!secrets.put(&dev, &name("b"), b"1", |there| there).unwrap());
        assert!(secrets.put(&dev, &name("b"), b"1", |there| !there).unwrap());
        assert!(!secrets.put(&dev, &name("b"), b"2", |there| !there).unwrap());
        assert!(secrets.put(&dev, &name("b"), &[0, 255], |there| there).unwrap());
        assert!(secrets.put(&dev, &name(&"x".repeat(253)), b"", |_| true).unwrap());
        assert_eq!(secrets.read(&dev, &name("b")).unwrap(), Some(vec![0, 255]));
        assert_eq!(secrets.read(&other, &name("b")).unwrap(), None);
        assert_eq!(secrets.list(&dev).unwrap(), [name("b"), name(&"x".repeat(253))]);
        assert!(secrets.remove(&dev, &name("b")).unwrap() && !secrets.remove(&dev, &name("b")).unwrap());
        secrets.clear(&dev).unwrap();
        secrets.clear(&dev).unwrap();
        assert_eq!(secrets.list(&dev).unwrap(), []);
    }

    #[test]
    fn for_root_alone_and_without_leftovers() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("secrets/dev");
        // As somebody's hand makes it, and a power cut in a write.
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(NEW), "ha").unwrap();
        let secrets = Secrets::new(state.path());
        secrets.prepare().unwrap();
        secrets.put(&"dev".parse().unwrap(), &name("key"), b"hush", |_| true).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&state.path().join("secrets")), mode(&folder)), (0o700, 0o700));
        assert_eq!(mode(&folder.join("key")), 0o600);
        assert_eq!(entries(&folder).unwrap(), [folder.join("key")]);
    }
}
