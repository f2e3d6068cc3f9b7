//! The file of users and passwords, as `docker login` writes it.

use std::fs;
use std::sync::LazyLock;

use tempfile::NamedTempFile;

use crate::registry::credentials::Credentials;

/// Names that are asked for whatever the file has.
const ALWAYS: [&str; 3] = ["docker.io", "ghcr.io", "plant.example:5000"];

/// What no message may repeat. The passwords in the corpus have it.
const SECRET: &str = "swordfish";

/// In memory where there is such a folder.
static FILE: LazyLock<NamedTempFile> = LazyLock::new(|| {
    NamedTempFile::new_in("/dev/shm").or_else(|_| NamedTempFile::new()).expect("a file of our own")
});

pub fn check(data: &[u8]) {
    fs::write(FILE.path(), data).unwrap();
    let fields = serde_json::from_slice::<serde_json::Value>(data).unwrap_or_default();
    let keys = fields["auths"].as_object().into_iter().flat_map(|auths| auths.keys().map(String::as_str));
    for registry in ALWAYS.into_iter().chain(keys).filter(|name| !name.contains(SECRET)) {
        match Credentials::read(FILE.path(), registry) {
            Err(error) => assert!(!error.to_string().contains(SECRET), "{error}"),
            Ok(None) | Ok(Some(Credentials::Refresh(_))) => {}
            Ok(Some(found)) => shown(&found),
        }
        // It depends on nothing but the file.
        let again = Credentials::read(FILE.path(), &registry.to_ascii_uppercase());
        assert!(again.ok() == Credentials::read(FILE.path(), registry).ok());
    }
}

/// The header is what the file says.
fn shown(credentials: &Credentials) {
    let Credentials::Password { user, password } = credentials else { unreachable!() };
    let header = credentials.basic().expect("a header");
    assert!(header.is_sensitive() && !user.is_empty());
    let text = header.to_str().unwrap().strip_prefix("Basic ").unwrap();
    assert_eq!(super::base64(text.as_bytes()), Some(format!("{user}:{password}").into_bytes()));
}
