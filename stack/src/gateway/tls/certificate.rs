//! The certificate and its key: read, checked, and exchanged for new ones while connections go on.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::validity::Validity;
use crate::error::{Error, Result};

/// A file of either, at most so large.
const LARGEST: u64 = 1 << 20;

/// The certificate of now, for every new connection. Without one each handshake fails: nothing is ever sent in plain
/// text where TLS was asked for.
#[derive(Debug, Default)]
pub struct Current(RwLock<Option<Arc<CertifiedKey>>>);

impl Current {
    /// Puts another one in its place. Connections that are there keep theirs.
    pub fn replace(&self, pair: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(pair);
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A certificate and a key that belong together.
#[derive(Debug)]
pub struct Pair {
    /// For TLS.
    pub key: Arc<CertifiedKey>,
    /// When the certificate is valid.
    pub validity: Validity,
}

impl Pair {
    /// Reads both files.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self> {
        let invalid =
            |path: &Path, reason: String| Error::Invalid { what: path.display().to_string(), reason };
        let chain = CertificateDer::pem_slice_iter(&bytes(certificate)?).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| invalid(certificate, format!("is no PEM file: {error}")))?;
        let Some(first) = chain.first() else {
            let reason =
                "has no certificate, expected a PEM file with -----BEGIN CERTIFICATE-----".to_owned();
            return Err(invalid(certificate, reason));
        };
        let validity = Validity::of(first);
        let validity = validity.ok_or_else(|| invalid(certificate, "is no X.509 certificate".to_owned()))?;
        let text = bytes(key)?;
        let private = PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
            let reason = if text.windows(9).any(|word| word == b"ENCRYPTED") {
                "is encrypted, expected a private key without a passphrase: nobody is there to type it"
                    .to_owned()
            } else {
                format!("has no private key, expected a PEM file with -----BEGIN PRIVATE KEY-----: {error}")
            };
            invalid(key, reason)
        })?;
        let provider = rustls::crypto::ring::default_provider();
        let pair = CertifiedKey::from_der(chain, private, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                invalid(key, format!("does not belong to the certificate in {}", certificate.display()))
            }
            error => invalid(key, format!("cannot be used with {}: {error}", certificate.display())),
        })?;
        Ok(Self { key: Arc::new(pair), validity })
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        let reason = format!("is larger than {LARGEST} bytes");
        return Err(Error::Invalid { what: path.display().to_string(), reason });
    }
    Ok(bytes)
}

/// What changes when a file is written or replaced; nothing where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    file: (u64, u64),
    length: u64,
    times: [(i64, i64); 2],
}

impl Mark {
    /// Looks at a file; one system call.
    pub fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        let times = [(found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec())];
        Some(Self { file: (found.dev(), found.ino()), length: found.len(), times })
    }
}

/// Whether everybody on the machine may read a file.
pub fn is_public(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.mode() & 0o004 != 0)
}
