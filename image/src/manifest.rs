//! The manifest beside an image: what it was made of, exactly enough to make it again.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::apt::Lock;
use crate::error::{Error, Result};

/// What an image consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this document's format.
    pub format: u32,
    /// Name of the recipe.
    pub name: String,
    /// Version of the builder and of our programs.
    pub version: String,
    /// Every time stamp in the image, seconds since 1970.
    pub epoch: u64,
    /// Name of the kernel's version.
    pub kernel: String,
    /// Root hash of the verity tree over the root file system.
    pub root_hash: String,
    /// SHA-256 of each of our programs.
    pub programs: Vec<Digest>,
    /// The compiler that made them; empty where nobody has told.
    pub compiler: String,
    /// Everything that apt resolved.
    pub lock: Lock,
    /// Names of the packages that something in the image comes from.
    pub used: Vec<String>,
    /// The finished files: the image and what of it other tools want.
    pub outputs: Vec<Digest>,
}

/// A file and its SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Name of the file.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256, lower case hexadecimal.
    pub sha256: String,
}

impl Digest {
    /// The digest of some bytes.
    pub fn of(name: &str, bytes: &[u8]) -> Digest {
        Digest { name: name.to_owned(), size: bytes.len() as u64, sha256: crate::digest::hex(bytes) }
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// The file cannot be read, or is no manifest of this format.
    pub fn load(path: &Path) -> Result<Manifest> {
        let bytes = std::fs::read(path).map_err(Error::read(path))?;
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| {
            let advice = "`bothy build --update` resolves packages again and writes a new one";
            Error::format("manifest", format!("{}: {e}; {advice}", path.display()))
        })?;
        if manifest.format != 1 {
            return Err(Error::format(
                "manifest",
                format!("{}: format {} is unknown", path.display(), manifest.format),
            ));
        }
        Ok(manifest)
    }

    /// The document as it is written.
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        text
    }
}
