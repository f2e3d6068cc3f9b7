//! HTTP towards one registry: connections, certificates, patience, and errors in words.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, RootCertStore};

use super::said::said;
use crate::error::{Error, Result, Trouble};
use crate::timestamp;
use crate::trust;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// A small body as a whole may take so many times the longest silence.
const WHOLE: u32 = 10;

/// Connections that wait for the next question of the same pull.
const IDLE_CONNECTIONS: usize = 4;
const IDLE_TIME: Duration = Duration::from_secs(15);

/// Certificates of a file, at most so large.
const LARGEST_CA: u64 = 4 << 20;

/// Talks to one registry, and to where it sends us.
pub struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// What the registry is called, for errors.
    registry: String,
    /// The longest silence that is waited through.
    patience: Duration,
}

impl Client {
    /// Prepares connections. With `insecure` they may be plain HTTP; without, none ever is.
    pub fn new(registry: &str, ca: Option<&Path>, insecure: bool, patience: Duration) -> Result<Self> {
        let mut roots = trust::public();
        if let Some(path) = ca {
            add(&mut roots, path)?;
        }
        let config = trust::settings(roots)?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT.min(patience)));
        let builder = HttpsConnectorBuilder::new().with_tls_config(config);
        let builder = if insecure { builder.https_or_http() } else { builder.https_only() };
        let pool = Pool::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_TIME)
            .pool_timer(TokioTimer::new())
            .build(builder.enable_http1().wrap_connector(tcp));
        Ok(Self { pool, registry: registry.to_owned(), patience })
    }

    /// Asks, and waits until an answer begins.
    pub async fn ask(&self, act: &str, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        let host = server(request.uri());
        match tokio::time::timeout(self.patience, self.pool.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let reason = explain(&error, &self.registry);
                let verb = if error.is_connect() { "cannot connect to" } else { "lost the connection to" };
                let trouble = if error.is_connect() { trouble(&error) } else { Trouble::Away };
                Err(self.error(act, trouble, format!("{verb} {host}: {reason}")))
            }
            Err(_) => {
                let reason = format!("{host} did not answer in {} s", self.patience.as_secs());
                Err(self.error(act, Trouble::Silent, reason))
            }
        }
    }

    /// The next bytes of an answer's body; nothing at its end.
    pub async fn next(&self, act: &str, body: &mut Incoming) -> Result<Option<Bytes>> {
        loop {
            match tokio::time::timeout(self.patience, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    // Trailers say nothing that matters here.
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
                Ok(Some(Err(error))) => {
                    let reason = format!("the answer broke off: {}", explain(&error, &self.registry));
                    return Err(self.error(act, Trouble::Away, reason));
                }
                Ok(None) => return Ok(None),
                Err(_) => {
                    let seconds = self.patience.as_secs();
                    let reason = format!("the answer stopped: nothing came for {seconds} s");
                    return Err(self.error(act, Trouble::Silent, reason));
                }
            }
        }
    }

    /// A body as a whole, if it is not larger than that.
    pub async fn whole(&self, act: &str, mut body: Incoming, most: usize) -> Result<Vec<u8>> {
        let collect = async {
            let mut whole = Vec::new();
            while let Some(bytes) = self.next(act, &mut body).await? {
                whole.extend_from_slice(&bytes);
                if whole.len() > most {
                    let reason = format!("the answer is larger than {most} bytes");
                    return Err(self.error(act, Trouble::Wrong, reason));
                }
            }
            Ok(whole)
        };
        // Who sends a byte now and then must not keep us for ever.
        let limit = self.patience * WHOLE;
        tokio::time::timeout(limit, collect).await.unwrap_or_else(|_| {
            let reason = format!("the answer did not come to its end in {} s", limit.as_secs());
            Err(self.error(act, Trouble::Silent, reason))
        })
    }

    /// A failure of this registry.
    pub fn error(&self, act: &str, trouble: Trouble, reason: impl Into<String>) -> Error {
        Error::Registry {
            registry: self.registry.clone(),
            act: act.to_owned(),
            trouble,
            reason: reason.into(),
        }
    }
}

/// Takes the certificates of a file among those that are believed.
fn add(roots: &mut RootCertStore, path: &Path) -> Result<()> {
    let read = |source| Error::Read { path: PathBuf::from(path), source };
    let size = std::fs::metadata(path).map_err(read)?.len();
    let wrong = |reason: String| Error::Invalid { what: path.display().to_string(), reason };
    if size > LARGEST_CA {
        return Err(wrong(format!("has {size} bytes, expected certificates within {LARGEST_CA} bytes")));
    }
    let text = std::fs::read(path).map_err(read)?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate =
            certificate.map_err(|error| wrong(format!("is no file of PEM certificates: {error}")))?;
        roots
            .add(certificate)
            .map_err(|error| wrong(format!("holds a certificate that is none: {error}")))?;
        count += 1;
    }
    if count == 0 {
        return Err(wrong(
            "holds no certificate, expected lines between BEGIN CERTIFICATE and END CERTIFICATE".into(),
        ));
    }
    Ok(())
}

/// Who is asked, without what may be a password before it.
fn server(address: &Uri) -> String {
    let host = said(address.host().unwrap_or_default());
    address.port_u16().map_or(host.clone(), |port| format!("{host}:{port}"))
}

/// What kind of failure it is that there is no connection: what TLS says of the other side stays true.
fn trouble(error: &(dyn std::error::Error + 'static)) -> Trouble {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return Trouble::Wrong;
        }
        if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::TimedOut) {
            return Trouble::Silent;
        }
        next = below(error);
    }
    Trouble::Away
}

/// What caused an error.
fn below<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a (dyn std::error::Error + 'static)> {
    // What an I/O error wraps is not its source: that is the source of what it wraps.
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

/// An error with its causes, and what helps where that is known.
fn explain(error: &(dyn std::error::Error + 'static), registry: &str) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut hint = None;
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        // Each of them tends to repeat the one below.
        if !said.iter().any(|known| known.contains(&text)) {
            said.push(text);
        }
        hint = hint.or(error.downcast_ref().and_then(|error| advice(error, registry)));
        next = below(error);
    }
    // The first ones are the library's ("client error (Connect)"), the last one is the reason.
    let reason = super::said::said(&said.pop().unwrap_or_default());
    match hint {
        Some(hint) => format!("{reason}; {hint}"),
        None => reason,
    }
}

/// What helps against a failure of TLS.
fn advice(error: &rustls::Error, registry: &str) -> Option<String> {
    let table = format!("[registries.\"{registry}\"] of bothy.toml");
    match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
            | CertificateError::Expired
            | CertificateError::ExpiredContext { .. } => {
                let now = timestamp::rfc3339(timestamp::now_seconds());
                Some(format!("this machine's clock says {now}"))
            }
            CertificateError::UnknownIssuer => {
                Some(format!("name the file of its authority's certificate as `ca` in {table}"))
            }
            _ => None,
        },
        rustls::Error::InvalidMessage(_) => {
            Some(format!("perhaps it speaks plain HTTP, which `insecure = true` in {table} allows"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_certificates_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let client = || Client::new("a.example", Some(&path), false, CONNECT);
        assert!(client().is_err_and(|error| error.to_string().contains("ca.pem")));
        std::fs::write(&path, "words\n").unwrap();
        assert!(client().is_err_and(|error| error.to_string().contains("holds no certificate")));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(client().is_err_and(|error| error.to_string().contains("ca.pem")));
        assert!(Client::new("a.example", None, false, CONNECT).is_ok());
    }

    #[test]
    fn causes_end_with_what_helps() {
        let tls = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let error = std::io::Error::other(std::io::Error::other(tls));
        let said = explain(&error, "plant.example:5000");
        assert!(
            said.contains("UnknownIssuer") && said.contains("[registries.\"plant.example:5000\"]"),
            "{said}"
        );
        assert_eq!(trouble(&error), Trouble::Wrong);
        assert_eq!(explain(&std::io::Error::other("refused"), "a"), "refused");
        assert_eq!(trouble(&std::io::Error::other("refused")), Trouble::Away);
        assert_eq!(trouble(&std::io::Error::from(std::io::ErrorKind::TimedOut)), Trouble::Silent);
        assert_eq!(server(&"https://u:p@a.example:5000/x?y".parse().unwrap()), "a.example:5000");
    }
}
