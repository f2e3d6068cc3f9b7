//! What makes a message safe from a power cut: an acknowledgement of JetStream means that the kernel has it, not that the
//! disk does.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::task::spawn_blocking;

/// The folder, once it was opened: it stays open, since the kernel tells of a failed write only those who were there before
/// it (errseq.rst). NATS's folder may be made after us.
pub type Opened = Arc<OnceLock<File>>;

/// Where the messages lie.
#[derive(Debug, Clone)]
pub enum Disk {
    /// On this machine: all that the kernel has for the file system of this folder can be brought to the disk.
    Here(PathBuf, Opened),
    /// In a cluster elsewhere, whose copies are what is relied on.
    Elsewhere,
}

impl Disk {
    /// On the file system of that folder.
    pub fn here(folder: PathBuf) -> Self {
        Self::Here(folder, Opened::default())
    }

    /// Brings all that was written before to the disk.
    ///
    /// # Errors
    /// The disk does not take it; in words.
    pub async fn sync(&self) -> Result<(), String> {
        let Self::Here(folder, opened) = self else { return Ok(()) };
        let (folder, opened) = (folder.clone(), opened.clone());
        let sync = move || -> std::io::Result<()> {
            let folder = match opened.get() {
                Some(folder) => folder,
                None => {
                    let folder = File::open(&folder)?;
                    opened.get_or_init(|| folder)
                }
            };
            Ok(rustix::fs::syncfs(folder)?)
        };
        match spawn_blocking(sync).await {
            Ok(synced) => synced.map_err(|error| format!("the disk does not take it: {error}")),
            Err(_) => Err("the program ends".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_synced_and_none_is_none() {
        let folder = tempfile::tempdir().unwrap();
        Disk::here(folder.path().into()).sync().await.unwrap();
        Disk::Elsewhere.sync().await.unwrap();
        let error = Disk::here(folder.path().join("none")).sync().await.unwrap_err();
        assert!(error.starts_with("the disk does not take it: No such file"), "{error}");
    }
}
