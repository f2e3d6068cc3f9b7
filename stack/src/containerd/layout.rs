//! OCI image layouts on disk (image-spec, image-layout.md): `index.json` and `blobs/sha256/…`.

use std::fs;
use std::path::{Path, PathBuf};

use containerd_client::types::Descriptor;
use serde::Deserialize;

use crate::error::{Error, Result};

/// The annotation that holds an image's full reference.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// One image of a layout.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The layout's folder.
    pub folder: PathBuf,
    /// The image's full reference.
    pub reference: String,
    /// Its manifest.
    pub manifest: Descriptor,
}

/// A descriptor as JSON has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct JsonDescriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    pub size: i64,
    #[serde(default)]
    pub annotations: std::collections::HashMap<String, String>,
    pub platform: Option<Platform>,
}

/// What a machine must be to run an image.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Platform {
    pub architecture: String,
    pub os: String,
}

/// An image index, on disk or in the content store.
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    pub manifests: Vec<JsonDescriptor>,
}

impl From<JsonDescriptor> for Descriptor {
    fn from(json: JsonDescriptor) -> Self {
        Self { media_type: json.media_type, digest: json.digest, size: json.size, ..Default::default() }
    }
}

impl Layout {
    /// All images of all layouts in a folder, and what could not be read. A folder that is not there is empty.
    pub fn scan(folder: &Path) -> (Vec<Self>, Vec<Error>) {
        let (mut images, mut problems) = (Vec::new(), Vec::new());
        let mut folders: Vec<_> =
            fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        folders.sort();
        for folder in folders.into_iter().filter(|folder| folder.is_dir()) {
            match Self::read(&folder) {
                Ok(found) => images.extend(found),
                Err(error) => problems.push(error),
            }
        }
        (images, problems)
    }

    fn read(folder: &Path) -> Result<Vec<Self>> {
        let path = folder.join("index.json");
        let text = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let index: Index = serde_json::from_slice(&text)
            .map_err(|source| Error::Parse { what: path.display().to_string(), source })?;
        let named = index.manifests.into_iter().filter_map(|mut manifest| {
            let reference = manifest.annotations.remove(REF_NAME)?;
            Some(Self { folder: folder.to_owned(), reference, manifest: manifest.into() })
        });
        Ok(named.collect())
    }

    /// Where a blob lies; nothing when the digest is none, so that no digest leads out of the folder.
    pub(super) fn blob(&self, digest: &str) -> Result<PathBuf> {
        let hex = digest
            .strip_prefix("sha256:")
            .filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(hex) = hex else {
            let reason = "is no sha256 digest".to_owned();
            return Err(Error::Invalid { what: format!("{}: {digest:?}", self.folder.display()), reason });
        };
        Ok(self.folder.join("blobs/sha256").join(hex))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_what_is_named_and_reports_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["good", "bad"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let digest = format!("sha256:{}", "0".repeat(64));
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 7,
             "annotations": {REF_NAME: "localhost/a:latest"}},
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 7}]});
        fs::write(folder.path().join("good/index.json"), index.to_string()).unwrap();
        fs::write(folder.path().join("bad/index.json"), "{").unwrap();
        let (images, problems) = Layout::scan(folder.path());
        assert_eq!(images.len(), 1);
        assert_eq!(images[0].reference, "localhost/a:latest");
        assert_eq!(problems.len(), 1);
        assert!(images[0].blob(&digest).unwrap().ends_with("0".repeat(64)));
        assert!(images[0].blob("sha256:../../../etc/passwd").is_err());
        assert!(Layout::scan(Path::new("/nonexistent")).0.is_empty());
    }
}
