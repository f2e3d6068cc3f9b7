//! Image references, made complete as Docker does it.

use std::fmt;
use std::net::Ipv6Addr;

/// The registry of references that name none, and the folder of its single-word names.
pub const HUB: &str = "docker.io";
/// What it was called once; people and files still do.
const LEGACY_REGISTRY: &str = "index.docker.io";
const DEFAULT_FOLDER: &str = "library";
const DEFAULT_TAG: &str = "latest";

/// The registry of the images that the appliance brings: there is no such host to ask. (One with a port is another.)
const LOCAL: &str = "localhost";

/// Longest reference taken, made complete, in bytes.
const LONGEST: usize = 1024;

/// An image's reference with all of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The registry: a host, and a port where it has one.
    pub registry: String,
    /// The path there.
    pub repository: String,
    /// The tag; nothing where only a digest is given.
    pub tag: Option<String>,
    /// The digest that the image must have, where one is given.
    pub digest: Option<String>,
}

/// `figlet` becomes `docker.io/library/figlet:latest`; nothing when the text is no reference.
pub fn normalise(text: &str) -> Option<String> {
    Reference::parse(text).map(|reference| reference.to_string())
}

impl Reference {
    /// Reads a reference as people write it; nothing when the text is none.
    pub fn parse(text: &str) -> Option<Self> {
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
            Some((first, rest)) if first.contains(['.', ':']) || first == LOCAL => (first, rest),
            _ => (HUB, path),
        };
        let (registry, path) = match registry {
            HUB | LEGACY_REGISTRY if path.contains('/') => (HUB, path.to_owned()),
            HUB | LEGACY_REGISTRY => (HUB, format!("{DEFAULT_FOLDER}/{path}")),
            other => (other, path.to_owned()),
        };
        if !is_registry(registry) || !path.split('/').all(is_component) {
            return None;
        }
        let tag = tag.or(if digest.is_none() { Some(DEFAULT_TAG) } else { None });
        let complete = Self {
            registry: registry.to_owned(),
            repository: path,
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        };
        // What was added counts: it must be a reference itself.
        (complete.to_string().len() <= LONGEST).then_some(complete)
    }

    /// What a registry is asked for: the digest where there is one, else the tag.
    pub fn version(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or(DEFAULT_TAG)
    }

    /// Whether it names what only the appliance itself can have brought.
    pub fn is_local(&self) -> bool {
        self.registry == LOCAL
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// A host, and a port where there is one: what can be connected to.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_host && port.is_none_or(is_port)
}

/// Small letters and digits, with one dot, one or two underscores, or hyphens between them.
fn is_component(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let between = |part: &str| matches!(part, "" | "." | "_" | "__") || part.bytes().all(|b| b == b'-');
    text.starts_with(letter) && text.ends_with(letter) && text.split(letter).all(between)
}

fn is_tag(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !text.is_empty() && text.len() <= 128 && text.bytes().all(inner) && !text.starts_with(['.', '-'])
}

/// Whether a text is a digest of the one kind that is used.
pub fn is_digest(text: &str) -> bool {
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
            ("docker.io/figlet", "docker.io/library/figlet:latest".to_owned()),
            ("index.docker.io/a/b:1", "docker.io/a/b:1".to_owned()),
            ("localhost/figlet:latest", "localhost/figlet:latest".to_owned()),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest".to_owned()),
            ("ghcr.io/a/b__c--d:V1", "ghcr.io/a/b__c--d:V1".to_owned()),
            ("[fd00::1]:5000/a", "[fd00::1]:5000/a:latest".to_owned()),
            (&format!("a@{digest}"), format!("docker.io/library/a@{digest}")),
        ] {
            assert_eq!(normalise(text), Some(full), "{text}");
        }
        let both = Reference::parse(&format!("ghcr.io/a/b:1@{digest}")).unwrap();
        assert_eq!((both.registry.as_str(), both.repository.as_str()), ("ghcr.io", "a/b"));
        assert_eq!((both.tag.as_deref(), both.version()), (Some("1"), digest.as_str()));
        let long = "a".repeat(LONGEST - "docker.io/library/:latest".len());
        assert_eq!(normalise(&long).map(|full| full.len()), Some(LONGEST));
        assert_eq!(normalise(&format!("{long}a")), None);
        assert!(Reference::parse("localhost/a").unwrap().is_local());
        assert!(!Reference::parse("localhost:5000/a").unwrap().is_local());
        for bad in [
            "",
            "A",
            "a b",
            "a:",
            "a@sha256:1",
            "/a",
            "a/",
            "a//b",
            "a..b",
            "a:.x",
            "../a",
            "https://x/y",
            "a___b",
            "a._b",
            "a-.b",
            "a.b:1:2/c",
            "a.b:/c",
            "a.b:70000/c",
            "a..b/c",
            ".a/b",
            "-a.b/c",
            "[x]:1/a",
            "[::1/a",
        ] {
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
