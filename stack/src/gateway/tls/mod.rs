//! The gateway's TLS port. Its files may be missing, wrong or replaced at any time; nothing else waits for them.

mod certificate;
mod port;
mod validity;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

pub use port::{Port, SOCKET, forget};

use super::options::Options;
use crate::desired::on_disk;
use crate::error::{Error, Result};
use crate::timestamp::{now_seconds, rfc3339};
use certificate::{Current, Mark, Pair, is_public};
use validity::Validity;

/// Pause between two looks at the files. What has changed is read when a second look finds it as the first: whoever
/// replaces both files needs a moment.
const LOOK: Duration = Duration::from_secs(2);

/// Files that are not good are read again so often, whether they have changed or not: what was wrong may have been the
/// disk.
const RETRY: Duration = Duration::from_secs(60);

/// From then on the journal says that the certificate ends, once a day.
const SOON_SECONDS: u64 = 30 * 24 * 3600;
const AGAIN: Duration = Duration::from_secs(24 * 3600);

/// Where certificate and key are.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate, and those above it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What the command line and the configuration say: the former goes first, key by key.
pub fn settings(options: &Options, configured: Option<provisioning::Tls>) -> Option<provisioning::Tls> {
    let given = options.tls_certificate.clone().zip(options.tls_key.clone());
    let tls = match (given, configured) {
        (Some((certificate, key)), configured) => provisioning::Tls {
            certificate,
            key,
            listen: configured.as_ref().map_or(provisioning::Tls::LISTEN, |tls| tls.listen),
            only: configured.is_some_and(|tls| tls.only),
        },
        (None, configured) => configured?,
    };
    let listen = options.tls_listen.unwrap_or(tls.listen);
    Some(provisioning::Tls { listen, only: tls.only || options.tls_only, ..tls })
}

/// Begins to look after the files. What is given makes connections of TLS, with the certificate of the moment; `tell` hears
/// what a person should know of it, and nothing when all is well again.
pub fn start(files: Files, tell: impl Fn(Option<String>) + Send + 'static) -> Result<TlsAcceptor> {
    let current = Arc::new(Current::default());
    let invalid = |error: rustls::Error| Error::Invalid { what: "TLS".into(), reason: error.to_string() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().map_err(invalid)?;
    let mut config = config.with_no_client_auth().with_cert_resolver(current.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let hangup = signal(SignalKind::hangup());
    let hangup = hangup.map_err(|e| Error::Invalid { what: "SIGHUP".into(), reason: e.to_string() })?;
    let mut keeper = Keeper { files, current, validity: None, problem: None, said: None };
    // So that the first connection finds it.
    let read = keeper.files.marks();
    keeper.take(keeper.files.read());
    tokio::spawn(async move { keeper.follow(read, hangup, tell).await });
    Ok(TlsAcceptor::from(Arc::new(config)))
}

type Marks = [Option<Mark>; 2];

impl Files {
    fn marks(&self) -> Marks {
        [Mark::of(&self.certificate), Mark::of(&self.key)]
    }

    fn read(&self) -> Result<Pair> {
        if is_public(&self.key) {
            let path = self.key.display();
            tracing::warn!("everybody on this machine may read the private key {path}: chmod 600 {path}");
        }
        Pair::read(&self.certificate, &self.key)
    }
}

/// Keeps the certificate of now like the files.
struct Keeper {
    files: Files,
    current: Arc<Current>,
    /// Of the certificate that is used.
    validity: Option<Validity>,
    /// Why the files of now are not used.
    problem: Option<String>,
    /// When it was last said that it ends soon.
    said: Option<Instant>,
}

impl Keeper {
    async fn follow(&mut self, mut read: Marks, mut hangup: Signal, tell: impl Fn(Option<String>)) {
        let (mut seen, mut last) = (read, Instant::now());
        loop {
            let doubt = self.warn(now_seconds());
            tell(self.problem.clone().or(doubt));
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {
                    let now = self.on_disk(Files::marks).await;
                    let settled = now == seen;
                    seen = now;
                    let again = self.problem.is_some() && last.elapsed() >= RETRY;
                    if !settled || now == read && !again {
                        continue;
                    }
                }
                _ = hangup.recv() => {}
            }
            // Before: what is written while it is read is read again.
            read = self.on_disk(Files::marks).await;
            (seen, last) = (read, Instant::now());
            let found = self.on_disk(Files::read).await;
            self.take(found);
        }
    }

    /// A card that fails may take its time to say so.
    async fn on_disk<T: Send + 'static>(&self, act: impl FnOnce(&Files) -> T + Send + 'static) -> T {
        let files = self.files.clone();
        on_disk(move || act(&files)).await
    }

    /// Takes what was read. A pair that is not good changes nothing, and is told once.
    fn take(&mut self, found: Result<Pair>) {
        match found {
            Ok(pair) => {
                let (path, until) = (self.files.certificate.display(), rfc3339(pair.validity.until));
                tracing::info!("TLS uses the certificate in {path}, which is valid until {until}");
                self.current.replace(pair.key);
                (self.validity, self.problem, self.said) = (Some(pair.validity), None, None);
            }
            Err(error) => {
                let problem = if self.validity.is_some() {
                    format!("the new certificate is not used, the old one stays: {error}")
                } else {
                    format!("no TLS connection can be made until this is put right: {error}")
                };
                if self.problem.as_ref() == Some(&problem) {
                    return;
                }
                tracing::error!("{problem}");
                self.problem = Some(problem);
            }
        }
    }

    /// Says when the certificate ends soon, or does not count; and gives it.
    fn warn(&mut self, now: u64) -> Option<String> {
        let words = self.validity.and_then(|validity| doubt(validity, now))?;
        let words = format!("the certificate in {} {words}", self.files.certificate.display());
        if self.said.is_none_or(|said| said.elapsed() >= AGAIN) {
            self.said = Some(Instant::now());
            tracing::warn!("{words}");
        }
        Some(words)
    }
}

/// What there is to say about a certificate at a moment. A clock that is behind its first second is wrong, more likely
/// than not: nothing is said of its end then.
fn doubt(validity: Validity, now: u64) -> Option<String> {
    let (from, until) = (rfc3339(validity.from), rfc3339(validity.until));
    if now < validity.from {
        let now = rfc3339(now);
        return Some(format!(
            "is not valid before {from}, and this machine's clock says {now}: one of them is wrong"
        ));
    }
    if now > validity.until {
        return Some(format!("was valid until {until}: clients refuse it"));
    }
    let left = validity.until - now;
    (left < SOON_SECONDS).then(|| format!("is valid until {until}, for {} days more", left / 86_400))
}

#[cfg(test)]
mod tests {
    use super::super::options::tests::options;
    use super::*;

    #[test]
    fn the_command_line_goes_before_the_configuration() {
        let text =
            "version = 1\n[gateway]\ntls_certificate = \"/c\"\ntls_key = \"/k\"\ntls_listen = \"[::1]:4\"\n";
        let configured = || provisioning::parse(text, "x").unwrap().gateway.tls;
        assert_eq!(settings(&options(&[]).unwrap(), None), None);
        assert_eq!(settings(&options(&[]).unwrap(), configured()), configured());
        let given = options(&["--tls-certificate", "/d", "--tls-key", "/l", "--tls-only"]).unwrap();
        let tls = settings(&given, configured()).unwrap();
        assert_eq!((tls.certificate.to_str(), tls.listen.to_string().as_str()), (Some("/d"), "[::1]:4"));
        assert!(tls.only);
        assert_eq!(settings(&given, None).unwrap().listen, provisioning::Tls::LISTEN);
        let elsewhere = options(&["--tls-listen", "127.0.0.1:9"]).unwrap();
        assert_eq!(settings(&elsewhere, configured()).unwrap().listen.port(), 9);
        for half in [["--tls-certificate", "/d"], ["--tls-key", "/l"]] {
            assert!(options(&half).unwrap_err().contains("required"), "{half:?}");
        }
    }

    #[test]
    fn ends_are_said_in_time_and_not_by_a_wrong_clock() {
        let day = 86_400;
        let validity = Validity { from: 1000 * day, until: 1090 * day };
        assert!(doubt(validity, 0).unwrap().contains("clock says 1970-01-01T00:00:00Z"));
        assert_eq!(doubt(validity, 1000 * day), None);
        assert_eq!(doubt(validity, 1060 * day), None);
        assert!(doubt(validity, 1060 * day + 1).unwrap().ends_with("for 29 days more"));
        assert!(doubt(validity, 1090 * day + 1).unwrap().starts_with("was valid until 1972-"));
    }
}
