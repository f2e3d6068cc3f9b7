//! What makes a message safe from a power cut: an acknowledgement of JetStream means that the kernel has it, not that the
//! disk does.

use std::fs::File;
use std::path::PathBuf;

use tokio::task::spawn_blocking;

/// Where the messages lie.
#[derive(Debug, Clone)]
pub enum Disk {
    /// On this machine: all that the kernel has for the file system of this folder can be brought to the disk.
    Here(PathBuf),
    /// In a cluster elsewhere, whose copies are what is relied on.
    Elsewhere,
}

impl Disk {
    /// Brings all that was written before to the disk.
    ///
    /// # Errors
    /// The disk does not take it; in words.
    pub async fn sync(&self) -> Result<(), String> {
        let Self::Here(folder) = self else { return Ok(()) };
        let folder = folder.clone();
        // Opened each time: NATS's folder may be made after us.
        let sync = move || File::open(&folder).and_then(|opened| Ok(rustix::fs::syncfs(opened)?));
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
        Disk::Here(folder.path().into()).sync().await.unwrap();
        Disk::Elsewhere.sync().await.unwrap();
        let error = Disk::Here(folder.path().join("none")).sync().await.unwrap_err();
        assert!(error.starts_with("the disk does not take it: No such file"), "{error}");
    }
}
