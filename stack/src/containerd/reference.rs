//! Image references, made complete as Docker does it.

/// The registry of references that name none, and the folder of its single-word names.
const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_FOLDER: &str = "library";

/// Longest reference taken, in bytes.
const LONGEST: usize = 1024;

/// `figlet` becomes `docker.io/library/figlet:latest`; nothing when the text is no reference.
pub fn normalise(text: &str) -> Option<String> {
    if text.is_empty() || text.len() > LONGEST {
        return None;
    }
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    if !digest.is_none_or(is_digest) {
        return None;
    }
    // A colon behind the last slash starts the tag; one before it belongs to the registry's port.
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    if !tag.is_none_or(is_tag) {
        return None;
    }
    let (registry, path) = match path.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
        Some(_) => (DEFAULT_REGISTRY, path.to_owned()),
        None => (DEFAULT_REGISTRY, format!("{DEFAULT_FOLDER}/{path}")),
    };
    let host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    let begins = registry.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
    if !begins || !registry.bytes().all(host) || !path.split('/').all(is_component) {
        return None;
    }
    Some(match (tag, digest) {
        (None, None) => format!("{registry}/{path}:latest"),
        (Some(tag), None) => format!("{registry}/{path}:{tag}"),
        (None, Some(digest)) => format!("{registry}/{path}@{digest}"),
        (Some(tag), Some(digest)) => format!("{registry}/{path}:{tag}@{digest}"),
    })
}

/// Small letters and digits, with single dots, hyphens, or one or two underscores between them.
fn is_component(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    edge(text.as_bytes().first())
        && edge(text.as_bytes().last())
        && text.bytes().all(inner)
        && !text.contains("..")
}

fn is_tag(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !text.is_empty() && text.len() <= 128 && text.bytes().all(inner) && !text.starts_with(['.', '-'])
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, full) in [
            ("figlet", "docker.io/library/figlet:latest".to_owned()),
            ("functions/figlet:0.1", "docker.io/functions/figlet:0.1".to_owned()),
            ("localhost/figlet:latest", "localhost/figlet:latest".to_owned()),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest".to_owned()),
            ("ghcr.io/a/b__c-d:V1", "ghcr.io/a/b__c-d:V1".to_owned()),
            (&format!("a@{digest}"), format!("docker.io/library/a@{digest}")),
        ] {
            assert_eq!(normalise(text), Some(full), "{text}");
        }
        for bad in
            ["", "A", "a b", "a:", "a@sha256:1", "/a", "a/", "a//b", "a..b", "a:.x", "../a", "https://x/y"]
        {
            assert_eq!(normalise(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(text in "[a-z0-9./:@_-]{1,60}") {
            if let Some(full) = normalise(&text) {
                prop_assert_eq!(normalise(&full), Some(full.clone()));
            }
        }
    }
}
