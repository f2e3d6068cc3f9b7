//! Manifests and indexes as registries give them.

use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

use super::said::said;
use crate::desired::hex;
use crate::object::Object;

/// What we can read (image-spec, media-types.md; Docker's schema 2).
pub const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
pub const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

/// Largest manifest, index or configuration that is taken, in bytes: the least that registries must take
/// (distribution-spec, "Pushing Manifests").
pub const LARGEST: usize = 4 << 20;

/// A manifest, an index or a configuration, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What it is.
    pub media_type: String,
    /// Its digest, computed from the bytes.
    pub digest: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Whether a media type is that of an index.
pub fn is_index(media_type: &str) -> bool {
    INDEXES.contains(&media_type)
}

/// The digest of bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: i64,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

impl Document {
    /// Takes an answer's body. `content_type` is what the registry calls it; the document's own word is stronger. The
    /// error is what is wrong with it.
    pub fn new(bytes: Vec<u8>, content_type: &str) -> Result<Self, String> {
        let Object(shape): Object<Shape> = serde_json::from_slice(&bytes)
            .map_err(|error| format!("what came is no manifest: {}", said(&error.to_string())))?;
        let content_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if shape.schema_version == 1 {
            return Err("its format is Docker's schema 1, which is not supported: push it anew".into());
        }
        let media_type = shape.media_type.unwrap_or(content_type);
        let is_manifest = MANIFESTS.contains(&media_type.as_str());
        if !is_manifest && !is_index(&media_type) {
            return Err(format!("its media type {:?} is not that of an image", said(&media_type)));
        }
        // A document must not be one thing to us and another to somebody else (CVE-2021-41190).
        let looks = (shape.manifests.is_some(), shape.config.is_some() || shape.layers.is_some());
        if looks != (!is_manifest, is_manifest) {
            return Err(format!("its parts are not those of a document of the media type {media_type}"));
        }
        Ok(Self { digest: digest(&bytes), media_type, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_it_says_of_itself_is_stronger() {
        let new = |text: serde_json::Value, content_type: &str| {
            Document::new(text.to_string().into_bytes(), content_type)
        };
        let manifest = json!({"schemaVersion": 2, "config": {}, "layers": []});
        let index = json!({"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": []});
        assert_eq!(
            new(manifest.clone(), &format!("{}; charset=utf-8", MANIFESTS[1])).unwrap().media_type,
            MANIFESTS[1]
        );
        assert_eq!(new(index.clone(), "text/plain").unwrap().media_type, INDEXES[0]);
        for (bad, content_type, words) in [
            (json!([]), MANIFESTS[0], "no manifest"),
            (json!([2, MANIFESTS[0], null, {}, []]), MANIFESTS[0], "no manifest"),
            (json!({"schemaVersion": 1, "fsLayers": []}), "application/json", "schema 1"),
            (manifest.clone(), "text/html", "text/html"),
            (manifest, INDEXES[0], "parts"),
            (
                json!({"schemaVersion": 2, "mediaType": MANIFESTS[0], "config": {}, "layers": [], "manifests": []}),
                MANIFESTS[0],
                "parts",
            ),
        ] {
            let said = new(bad, content_type).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
        let document = new(index, "").unwrap();
        assert_eq!(document.digest, digest(&document.bytes));
        assert!(is_index(&document.media_type) && !is_index(MANIFESTS[0]));
    }
}
