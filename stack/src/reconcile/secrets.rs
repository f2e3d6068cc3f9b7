//! Secrets as instances see them: a folder of copies for each, in memory, that its own user can read and nobody else's.
//!
//! The stored files are for root alone, and functions run as any user. A mode that lets that user in would let in every
//! process of the machine that has the same number; so each instance gets a folder of its own, with files of its user,
//! below one that is closed, and sees it as `/var/openfaas/secrets`, read-only. Another function has no path to it. A new
//! value is renamed over the old one within the folder, which running functions see at once and never by half.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::mount::{MsFlags, mount};
use provisioning::Namespace;

use crate::desired::{self, Document, SecretName};
use crate::error::{Error, Result};
use crate::runtime::Identity;

/// Name of a copy that is being written: no secret's.
const NEW: &str = "~new";

/// Most that the secrets of one function may have together, in bytes: each of its instances has copies of them all.
pub const LARGEST_SECRETS_BYTES: usize = 1 << 20;

/// Memory for all copies.
const ROOM_MIB: usize = 16;

/// The stored secrets and the instances' copies. Clones share them.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// The stored ones.
    pub stored: desired::Secrets,
    copies: PathBuf,
    /// Held while copies are made: a value that is read must be written before a newer one is.
    copying: Arc<Mutex<()>>,
}

impl Secrets {
    /// `copies` is a folder in memory; see [`Self::prepare`].
    pub fn new(stored: desired::Secrets, copies: PathBuf) -> Self {
        Self { stored, copies, copying: Arc::default() }
    }

    /// Gives the copies memory of their own, so that many of them leave room for everybody else. Needs `CAP_SYS_ADMIN`, as
    /// do the functions' network namespaces. Copies that are there already stay where they are: functions see them.
    pub fn prepare(&self) -> Result<()> {
        make(&self.copies, 0o700)?;
        let read = |source| Error::Read { path: self.copies.clone(), source };
        let own = fs::metadata(&self.copies).map_err(read)?.dev();
        let above = fs::metadata(self.copies.join("..")).map_err(read)?.dev();
        if own != above || !entries(&self.copies)?.is_empty() {
            return Ok(());
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let options = format!("mode=0700,size={ROOM_MIB}m");
        mount(Some("secrets"), &self.copies, Some("tmpfs"), flags, Some(options.as_str()))
            .map_err(|errno| Error::Write { path: self.copies.clone(), source: errno.into() })
    }

    /// Bytes of a document's secrets together.
    pub fn size(&self, document: &Document) -> Result<usize> {
        let Ok(namespace) = document.namespace.parse::<Namespace>() else { return Ok(0) };
        let names: BTreeSet<SecretName> =
            document.secrets.iter().filter_map(|name| name.parse().ok()).collect();
        let sizes = names.iter().map(|name| self.stored.size(&namespace, name));
        sizes.sum::<Result<usize>>()
    }

    /// The first secret of a document that is not there.
    pub fn missing(&self, document: &Document) -> Option<String> {
        let namespace = document.namespace.parse::<Namespace>().ok();
        let there = |name: &&String| match (&namespace, name.parse::<SecretName>()) {
            (Some(namespace), Ok(name)) => self.stored.has(namespace, &name),
            _ => false,
        };
        document.secrets.iter().find(|name| !there(name)).cloned()
    }

    /// The names of a document's secrets, all of which are there.
    pub(super) fn of(&self, document: &Document) -> Result<Vec<SecretName>> {
        match self.missing(document) {
            Some(name) => Err(absent(&name)),
            None => Ok(document.secrets.iter().filter_map(|name| name.parse().ok()).collect()),
        }
    }

    /// Makes an instance's copies, readable for its user; nothing where it has no secrets.
    pub(super) fn copy(
        &self,
        instance: &str,
        namespace: &Namespace,
        names: &[SecretName],
        identity: &Identity,
    ) -> Result<Option<PathBuf>> {
        let _turn = self.turn();
        let folder = self.copies.join(instance);
        clear(&folder)?;
        if names.is_empty() {
            return Ok(None);
        }
        make(&self.copies, 0o700)?;
        // Open, below a closed one: the function's user looks into it, and cannot change it.
        make(&folder, 0o755)?;
        for name in names {
            let value = self.stored.read(namespace, name)?.ok_or_else(|| absent(name.as_str()))?;
            write(&folder, name.as_str(), &value, identity.uid, identity.gid)?;
        }
        Ok(Some(folder))
    }

    /// Removes an instance's copies.
    pub(super) fn forget(&self, instance: &str) -> Result<()> {
        let _turn = self.turn();
        clear(&self.copies.join(instance))
    }

    /// Removes the copies of instances that are none of these, and renews those of the others: what was stored just
    /// before the last gateway died has not reached them.
    pub(super) fn sweep(&self, names: &HashSet<String>) -> Result<()> {
        let _turn = self.turn();
        let mut first = Ok(());
        for folder in entries(&self.copies)? {
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !names.contains(name) {
                first = first.and(clear(&folder));
                continue;
            }
            let Some(namespace) = namespace(&folder) else { continue };
            let copies = entries(&folder).unwrap_or_else(|error| {
                tracing::warn!("{error}");
                Vec::new()
            });
            for copy in copies {
                let name = copy.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if let Ok(name) = name.parse::<SecretName>() {
                    first = first.and(self.renew_copy(&folder, &namespace, &name));
                }
            }
        }
        first
    }

    /// Brings the copies of one secret up to date. One that cannot be written keeps none of the others from it; the first
    /// error is told.
    pub fn renew(&self, of: &Namespace, name: &SecretName) -> Result<()> {
        let _turn = self.turn();
        let mut first = Ok(());
        for folder in entries(&self.copies)?.iter().filter(|folder| namespace(folder).as_ref() == Some(of)) {
            if folder.join(name.as_str()).exists() {
                first = first.and(self.renew_copy(folder, of, name));
            }
        }
        first
    }

    fn renew_copy(&self, folder: &Path, namespace: &Namespace, name: &SecretName) -> Result<()> {
        let copy = folder.join(name.as_str());
        // One that is gone stays as it was: the function runs.
        let Some(value) = self.stored.read(namespace, name)? else { return Ok(()) };
        let owner = fs::metadata(&copy).map_err(|source| Error::Read { path: copy.clone(), source })?;
        if fs::read(&copy).is_ok_and(|old| old == value) {
            return Ok(());
        }
        write(folder, name.as_str(), &value, owner.uid(), owner.gid())
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.copying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The namespace of the instance whose folder this is.
fn namespace(folder: &Path) -> Option<Namespace> {
    folder.file_name()?.to_str()?.split('.').next()?.parse().ok()
}

fn make(folder: &Path, mode: u32) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(folder);
    // Whatever the umask says, and whoever made it before.
    made.and_then(|()| fs::set_permissions(folder, Permissions::from_mode(mode)))
        .map_err(|source| Error::Write { path: folder.to_owned(), source })
}

fn clear(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(Error::Write { path: folder.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn absent(name: &str) -> Error {
    Error::Invalid { what: format!("secret {name:?}"), reason: "is not there".into() }
}

/// Puts a value in place of the old one. It lies in memory, so there is nothing to sync.
fn write(folder: &Path, name: &str, value: &[u8], uid: u32, gid: u32) -> Result<()> {
    let (new, path) = (folder.join(NEW), folder.join(name));
    let act = || -> io::Result<()> {
        // What a former life left half written.
        let _ = fs::remove_file(&new);
        let mut file = File::options().write(true).create_new(true).mode(0o400).open(&new)?;
        file.write_all(value)?;
        fchown(&file, Some(uid), Some(gid))?;
        fs::rename(&new, &path)
    };
    act().map_err(|source| {
        let _ = fs::remove_file(&new);
        if source.kind() == ErrorKind::StorageFull {
            return Error::Invalid {
                what: format!("secret {name}"),
                reason: format!(
                    "does not fit into the {ROOM_MIB} MiB of memory that all copies of secrets share: remove functions \
                     that have large ones, or store less in them"
                ),
            };
        }
        Error::Write { path: path.clone(), source }
    })
}

/// What lies in a folder; one that is not there is empty.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|source| Error::Read { path: folder.to_owned(), source })?,
    };
    Ok(list.flatten().map(|entry| entry.path()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    struct Lab {
        _folder: tempfile::TempDir,
        copies: PathBuf,
        secrets: Secrets,
        namespace: Namespace,
        me: Identity,
    }

    /// Copies are made for the user that runs the test: only root may give files away.
    fn lab() -> Lab {
        let folder = tempfile::tempdir().unwrap();
        let owner = fs::metadata(folder.path()).unwrap();
        let copies = folder.path().join("copies");
        let secrets = Secrets::new(desired::Secrets::new(folder.path()), copies.clone());
        let me = Identity { uid: owner.uid(), gid: owner.gid(), groups: Vec::new() };
        Lab { _folder: folder, copies, secrets, namespace: Namespace::default(), me }
    }

    impl Lab {
        fn store(&self, name: &str, value: &str) {
            let name = name.parse().unwrap();
            self.secrets.stored.put(&self.namespace, &name, value.as_bytes(), |_| true).unwrap();
        }

        fn copy(&self, instance: &str, names: &[&str]) -> Option<PathBuf> {
            let names: Vec<_> = names.iter().map(|name| name.parse().unwrap()).collect();
            self.secrets.copy(instance, &self.namespace, &names, &self.me).unwrap()
        }
    }

    #[test]
    fn secrets_are_files_of_the_namespace_and_nothing_else() {
        let lab = lab();
        lab.store("key", "x");
        let mut document = Document::new(&Key::new("f", "").unwrap(), "f");
        document.secrets = vec!["key".into()];
        assert_eq!(lab.secrets.of(&document).unwrap(), ["key".parse().unwrap()]);
        for bad in ["absent", "../other", "", ".."] {
            document.secrets = vec!["key".into(), bad.into()];
            assert_eq!(lab.secrets.missing(&document).as_deref(), Some(bad));
        }
        lab.store("other", "yz");
        document.secrets = ["key", "other", "key"].map(Into::into).to_vec();
        assert_eq!(lab.secrets.size(&document).unwrap(), 3);
        document = Document::new(&Key::new("f", "dev").unwrap(), "f");
        document.secrets = vec!["key".into()];
        assert_eq!(lab.secrets.missing(&document).as_deref(), Some("key"));
    }

    #[test]
    fn copies_are_closed_renewed_and_removed() {
        let lab = lab();
        for name in ["a", "b"] {
            lab.store(name, "old");
        }
        assert_eq!(lab.copy("openfaas-fn.none.0", &[]), None);
        let folder = lab.copy("openfaas-fn.f.0", &["a", "b"]).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&lab.copies), mode(&folder), mode(&folder.join("a"))), (0o700, 0o755, 0o400));
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "old");

        lab.store("a", "newer");
        fs::write(folder.join(NEW), "torn").unwrap();
        let before = fs::metadata(folder.join("b")).unwrap().ino();
        let renew = |name: &str| lab.secrets.renew(&lab.namespace, &name.parse().unwrap());
        renew("a").unwrap();
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "newer");
        assert_eq!(fs::metadata(folder.join("b")).unwrap().ino(), before, "it was no other");
        assert!(!folder.join(NEW).exists());
        // What cannot be read is told, and is no reason to leave others as they are.
        fs::create_dir(lab.copies.join("openfaas-fn.b.0")).unwrap();
        fs::create_dir(lab.copies.join("openfaas-fn.b.0/a")).unwrap();
        lab.store("a", "newest");
        assert!(renew("a").is_err());
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "newest");
        // Removed: what runs keeps it.
        lab.secrets.stored.remove(&lab.namespace, &"b".parse().unwrap()).unwrap();
        renew("b").unwrap();
        assert!(folder.join("b").exists());

        lab.store("b", "again");
        let other = lab.copy("openfaas-fn.g.0", &["b"]).unwrap();
        lab.secrets.sweep(&HashSet::from(["openfaas-fn.f.0".to_owned()])).unwrap();
        assert!(folder.exists() && !other.exists());
        assert_eq!(fs::read_to_string(folder.join("b")).unwrap(), "again");
        lab.secrets.forget("openfaas-fn.f.0").unwrap();
        lab.secrets.forget("openfaas-fn.f.0").unwrap();
        assert!(!folder.exists());
    }
}
