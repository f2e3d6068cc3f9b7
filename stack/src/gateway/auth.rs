//! Basic auth (RFC 7617) with one user.

use std::fs;
use std::path::Path;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use sha2::{Digest, Sha256};

use crate::base64;
use crate::error::{Error, Result};

/// The one user's credentials, as a digest of `user:password`.
pub struct Credentials {
    digest: [u8; 32],
}

impl Credentials {
    /// Reads `basic-auth-user` and `basic-auth-password`, trimmed as OpenFaaS trims them. An empty password would let
    /// everybody in, and is refused.
    pub fn read(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            let text =
                fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
            let text = text.trim().to_owned();
            if text.is_empty() {
                return Err(Error::Invalid { what: path.display().to_string(), reason: "is empty".into() });
            }
            Ok(text)
        };
        Ok(Self::new(&read("basic-auth-user")?, &read("basic-auth-password")?))
    }

    fn new(user: &str, password: &str) -> Self {
        Self { digest: digest(format!("{user}:{password}").as_bytes()) }
    }

    /// Whether a request carries them. Digests are compared, and all of their bytes, so that the time taken tells
    /// nothing about where a guess was wrong or how long the password is.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        let given =
            headers.get(AUTHORIZATION).and_then(|value| decode_header(value.as_bytes())).unwrap_or_default();
        let difference = digest(&given).iter().zip(&self.digest).fold(0, |sum, (a, b)| sum | (a ^ b));
        difference == 0
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn decode_header(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = value.split_at_checked(6)?;
    scheme.eq_ignore_ascii_case(b"basic ").then(|| base64::decode(rest.trim_ascii()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(header: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, header.parse().unwrap());
        Credentials::new("admin", "s3cret:x").admit(&headers)
    }

    #[test]
    fn only_the_right_ones() {
        assert!(admits("Basic YWRtaW46czNjcmV0Ong="));
        assert!(admits("basic YWRtaW46czNjcmV0Ong"));
        for bad in
            ["", "Basic", "Basic ", "Basic !!!!", "Bearer YWRtaW46czNjcmV0Ong=", "Basic YWRtaW46czNjcmV0"]
        {
            assert!(!admits(bad), "{bad}");
        }
        assert!(!Credentials::new("a", "b").admit(&HeaderMap::new()));
    }

    #[test]
    fn files() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Credentials::read(folder.path()).is_err());
        fs::write(folder.path().join("basic-auth-user"), "admin\n").unwrap();
        fs::write(folder.path().join("basic-auth-password"), " \n").unwrap();
        assert!(Credentials::read(folder.path()).is_err());
        fs::write(folder.path().join("basic-auth-password"), "x\n").unwrap();
        assert_eq!(Credentials::read(folder.path()).unwrap().digest, Credentials::new("admin", "x").digest);
    }
}
