//! Users and passwords, from a file as `docker login` writes it.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;

use hyper::header::HeaderValue;
use serde::Deserialize;

use crate::base64;
use crate::containerd::HUB;
use crate::error::{Error, Result};
use crate::object::Object;

/// Names under which Docker's own registry stands in the file; the first is what `docker login` writes.
const HUB_NAMES: [&str; 3] = ["index.docker.io", "docker.io", "registry-1.docker.io"];

/// Largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// What shows a registry who one is. It has no `Debug`, so that it is written nowhere.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user and a password, as basic auth has them.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// What a token is got for (`identitytoken`).
    Refresh(String),
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: HashMap<String, Object<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

impl Credentials {
    /// What a file says of a registry; nothing where it says nothing, or is not there.
    pub fn read(path: &Path, registry: &str) -> Result<Option<Self>> {
        let text = match std::fs::metadata(path).and_then(|found| {
            if found.len() > LARGEST { Err(ErrorKind::FileTooLarge.into()) } else { std::fs::read(path) }
        }) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| Error::Read { path: path.to_owned(), source })?,
        };
        Self::parse(&text, registry)
            .map_err(|reason| Error::Invalid { what: path.display().to_string(), reason })
    }

    fn parse(text: &[u8], registry: &str) -> Result<Option<Self>, String> {
        // The parser's own words may quote what it read.
        let Object(file): Object<File> = serde_json::from_slice(text).map_err(|error| {
            format!("is no configuration of docker's (line {}, column {})", error.line(), error.column())
        })?;
        let registry = registry.to_ascii_lowercase();
        let fits = |key: &str| match host(key) {
            host if registry == HUB => HUB_NAMES.contains(&host.as_str()),
            host => host == registry,
        };
        // The same registry may stand there twice: as it is called, and with a scheme or path.
        let exact = file.auths.get(&registry);
        let mut other: Vec<_> = file.auths.iter().filter(|(key, _)| fits(key)).collect();
        other.sort_by_key(|(key, _)| *key);
        match exact.or(other.first().map(|(_, entry)| *entry)) {
            Some(Object(entry)) => entry.credentials(&registry),
            None => Ok(None),
        }
    }

    /// The header of basic auth; nothing where there is no password.
    pub fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { user, password } = self else { return None };
        let mut value: HeaderValue =
            format!("Basic {}", base64::encode(format!("{user}:{password}").as_bytes())).parse().ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl Entry {
    fn credentials(&self, registry: &str) -> Result<Option<Credentials>, String> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credentials::Refresh(self.identitytoken.clone())));
        }
        if self.auth.is_empty() {
            let (user, password) = (self.username.clone(), self.password.clone());
            // An entry that holds nothing: its password is in a helper, on the machine where the file was written.
            return Ok((!user.is_empty()).then_some(Credentials::Password { user, password }));
        }
        let decoded =
            base64::decode(self.auth.trim().as_bytes()).and_then(|bytes| String::from_utf8(bytes).ok());
        let wrong = || format!("says of {registry} as `auth` what is not the base64 of USER:PASSWORD");
        let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
        let (user, password) = pair.filter(|(user, _)| !user.is_empty()).ok_or_else(wrong)?;
        // Docker itself has written a zero byte behind passwords.
        let password = password.trim_end_matches('\0');
        Ok(Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() }))
    }
}

/// The host of a key, which may be an address: `https://index.docker.io/v1/`.
fn host(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    key.split('/').next().unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn password(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { user: user.into(), password: password.into() })
    }

    #[test]
    fn as_docker_writes_it() {
        let text = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnNlY3JldDp4"},
            "ghcr.io": {"username": "farmer", "password": "p:w"},
            "http://plant.example:5000/v2/": {"auth": "cGxhbnQ6eAAA"},
            "azure.example": {"auth": "MDAwOg==", "identitytoken": "refresh"},
            "helper.example": {},
            "broken.example": {"auth": "!"},
            "nobody.example": {"auth": "OnBhc3M="},
        }, "credsStore": "desktop", "HttpHeaders": {"a": "b"}})
        .to_string();
        let parse = |registry: &str| Credentials::parse(text.as_bytes(), registry);
        assert!(parse("docker.io") == Ok(password("hub", "secret:x")));
        assert!(parse("ghcr.io") == Ok(password("farmer", "p:w")));
        assert!(parse("plant.example:5000") == Ok(password("plant", "x")));
        assert!(parse("azure.example") == Ok(Some(Credentials::Refresh("refresh".into()))));
        for none in ["helper.example", "quay.io", "plant.example", "index.docker.io.example"] {
            assert!(parse(none) == Ok(None), "{none}");
        }
        for broken in ["broken.example", "nobody.example"] {
            assert!(parse(broken).is_err_and(|reason| reason.contains(broken)), "{broken}");
        }
        assert!(password("a", "b").unwrap().basic().unwrap() == "Basic YTpi");
    }

    #[test]
    fn a_broken_file_is_told_of_without_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        assert!(Credentials::read(&path, "ghcr.io").unwrap().is_none());
        for text in [
            "{",
            r#"[{"ghcr.io": {}}]"#,
            r#"{"auths": "swordfish"}"#,
            r#"{"auths": {"ghcr.io": {"auth": ["swordfish"]}}}"#,
        ] {
            std::fs::write(&path, text).unwrap();
            let Err(error) = Credentials::read(&path, "ghcr.io") else { panic!("{text}") };
            let said = error.to_string();
            assert!(said.contains("config.json") && !said.contains("swordfish"), "{said}");
        }
    }
}
