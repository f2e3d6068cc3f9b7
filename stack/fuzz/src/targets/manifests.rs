//! Manifests and indexes of registries. An input is a media type, a line's end, and the document.

use serde_json::Value;

use stack::registry::{Document, is_index};

/// Longest message, in bytes: of what a registry says at most 200 characters are repeated.
const LONGEST: usize = 1024;

pub fn check(data: &[u8]) {
    let (media_type, bytes) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(0));
    let Ok(media_type) = str::from_utf8(media_type) else { return };
    match Document::new(bytes.to_vec(), media_type) {
        Ok(document) => {
            assert_eq!(document.bytes, bytes);
            assert!(stack::containerd::is_digest(&document.digest));
            // What is skipped need not be text.
            let Ok(fields) = serde_json::from_slice::<Value>(bytes) else { return };
            assert!(fields.is_object());
            // One thing to everybody: an index has manifests, a manifest has none.
            assert_eq!(
                fields.get("manifests").is_some_and(|it| !it.is_null()),
                is_index(&document.media_type)
            );
            if let Some(own) = fields["mediaType"].as_str() {
                assert_eq!(document.media_type, own);
            }
            assert_eq!(Document::new(bytes.to_vec(), media_type), Ok(document));
        }
        Err(wrong) => {
            assert!(!wrong.chars().any(char::is_control) && wrong.len() <= LONGEST, "{wrong:?}");
        }
    }
}
