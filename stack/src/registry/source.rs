//! One registry or mirror, as it is asked for one repository.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, USER_AGENT, WWW_AUTHENTICATE,
};
use hyper::{Request, Response, StatusCode, Uri};
use serde::Deserialize;

use super::challenge::Challenge;
use super::client::Client;
use super::credentials::Credentials;
use super::document::{Document, INDEXES, LARGEST, MANIFESTS, digest};
use super::location::{follow, same_server};
use super::said::said;
use super::settings::Settings;
use super::token;
use crate::containerd::{HUB, is_digest};
use crate::error::{Error, Result, Trouble};

/// Where Docker's own registry answers.
const HUB_HOST: &str = "registry-1.docker.io";

/// Most redirects that are followed for one question.
const REDIRECTS: usize = 5;

/// How much of a refusal is read for its reason, in bytes.
const REFUSAL: usize = 16 << 10;

/// A repository of a registry.
#[derive(Debug, Clone)]
pub struct Place {
    /// The registry's name, as references and the configuration have it.
    pub registry: String,
    /// The repository's path.
    pub repository: String,
}

impl Place {
    /// Puts it together.
    pub fn new(registry: &str, repository: &str) -> Self {
        Self { registry: registry.to_owned(), repository: repository.to_owned() }
    }
}

/// A registry while it is asked.
pub struct Source {
    place: Place,
    client: Client,
    credentials: Option<Credentials>,
    /// The file that they are of.
    docker_config: PathBuf,
    insecure: bool,
    /// What let us in last time.
    authorization: Mutex<Option<HeaderValue>>,
}

/// Why a registry refuses (distribution-spec, "Error Codes").
#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Source {
    /// Prepares to ask. Reads the files of certificates and passwords.
    pub fn new(place: Place, named: &provisioning::Registry, settings: &Settings) -> Result<Self> {
        let client = Client::new(&place.registry, named.ca.as_deref(), named.insecure, settings.patience)?;
        let credentials = Credentials::read(&settings.docker_config, &place.registry)?;
        let docker_config = settings.docker_config.clone();
        let (insecure, authorization) = (named.insecure, Mutex::default());
        Ok(Self { place, client, credentials, docker_config, insecure, authorization })
    }

    /// The registry's name.
    pub fn name(&self) -> &str {
        &self.place.registry
    }

    /// The client, for bodies and errors.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Where something of the repository is.
    pub(super) fn address(&self, what: &str) -> String {
        let Place { registry, repository } = &self.place;
        let scheme = if self.insecure { "http" } else { "https" };
        let host = if registry == HUB { HUB_HOST } else { registry };
        format!("{scheme}://{host}/v2/{repository}/{what}")
    }

    /// A manifest or index, by tag or digest; one that is asked for by digest has it.
    pub async fn manifest(&self, version: &str) -> Result<Document> {
        let act = format!(
            "ask for {}{}{version}",
            self.place.repository,
            if is_digest(version) { '@' } else { ':' }
        );
        let accept = [MANIFESTS, INDEXES].concat().join(", ");
        let mut headers = HeaderMap::new();
        // Names of media types are header values.
        headers.extend(accept.parse::<HeaderValue>().ok().map(|accept| (ACCEPT, accept)));
        let response = self.get(&act, &format!("manifests/{version}"), &headers).await?;
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let bytes = self.client.whole(&act, response.into_body(), LARGEST).await?;
        let wrong = |reason: String| self.client.error(&act, Trouble::Wrong, reason);
        let document = Document::new(bytes, &content_type).map_err(wrong)?;
        if is_digest(version) && document.digest != version {
            return Err(wrong(format!("what came has the digest {}", document.digest)));
        }
        Ok(document)
    }

    /// A small blob as a whole, such as an image's configuration.
    pub async fn small_blob(&self, wanted: &str) -> Result<Document> {
        let act = format!("ask for the blob {wanted}");
        let response = self.get(&act, &format!("blobs/{wanted}"), &HeaderMap::new()).await?;
        let bytes = self.client.whole(&act, response.into_body(), LARGEST).await?;
        let found = digest(&bytes);
        if found == wanted {
            return Ok(Document { media_type: String::new(), digest: found, bytes });
        }
        Err(self.client.error(&act, Trouble::Wrong, format!("what came has the digest {found}")))
    }

    /// Asks, shows who we are where that is wanted, follows redirects; gives an answer of 2xx.
    pub(super) async fn get(&self, act: &str, what: &str, headers: &HeaderMap) -> Result<Response<Incoming>> {
        let address = self.address(what);
        let wrong = |reason: String| self.client.error(act, Trouble::Wrong, reason);
        let home: Uri = address.parse().map_err(|_| wrong(format!("{address} is no address")))?;
        let (mut uri, mut at_home, mut introduced) = (home.clone(), true, false);
        let mut redirects = 0;
        loop {
            let mut request = Request::new(Full::<Bytes>::default());
            *request.uri_mut() = uri.clone();
            request.headers_mut().extend(headers.clone());
            let agent = concat!("bothy/", env!("CARGO_PKG_VERSION"));
            request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(agent));
            // Never to another server: what a registry sends us to is somebody else's.
            if let Some(authorization) = self.authorization().filter(|_| at_home) {
                request.headers_mut().insert(AUTHORIZATION, authorization);
            }
            let response = self.client.ask(act, request).await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && at_home && !introduced {
                introduced = true;
                self.introduce(act, response.headers()).await?;
            } else if let (true, Some(location)) = (status.is_redirection(), response.headers().get(LOCATION))
            {
                redirects += 1;
                let target = location.to_str().ok().and_then(|location| follow(&uri, location));
                let Some(target) = target.filter(|_| redirects <= REDIRECTS) else {
                    // What is behind it may let somebody in.
                    let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
                    let location = said(location.split('?').next().unwrap_or_default());
                    return Err(wrong(format!("it sends us to {location:?}, where we cannot follow")));
                };
                if target.scheme_str() == Some("http") && !self.insecure {
                    let host = said(target.host().unwrap_or_default());
                    return Err(wrong(format!("it sends us to {host} in plain HTTP, which is not allowed")));
                }
                at_home = at_home && same_server(&home, &target);
                uri = target;
            } else if status.is_success() {
                return Ok(response);
            } else {
                let elsewhere = (!at_home).then(|| said(uri.host().unwrap_or_default()));
                return Err(self.refusal(act, response, elsewhere).await);
            }
        }
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds what lets us in.
    async fn introduce(&self, act: &str, headers: &HeaderMap) -> Result<()> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<_> = values.flat_map(Challenge::parse).collect();
        let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        let authorization = match (of("bearer"), of("basic")) {
            (Some(bearer), _) => {
                token::get(&self.client, bearer, &self.place.repository, self.login(), self.insecure).await?
            }
            (None, Some(_)) => {
                self.credentials.as_ref().and_then(Credentials::basic).ok_or_else(|| {
                    self.client.error(act, Trouble::Refused, self.login().refused(self.name()))
                })?
            }
            (None, None) => {
                let reason = "it wants to know who we are, and not in a way that we know (Bearer, Basic)";
                return Err(self.client.error(act, Trouble::Refused, reason));
            }
        };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
        Ok(())
    }

    fn login(&self) -> token::Login<'_> {
        token::Login { credentials: self.credentials.as_ref(), file: &self.docker_config }
    }

    /// What a refusal means. `elsewhere` is who said it where a registry sent us to another server.
    async fn refusal(&self, act: &str, response: Response<Incoming>, elsewhere: Option<String>) -> Error {
        let status = response.status();
        let text = self.client.whole(act, response.into_body(), REFUSAL).await.unwrap_or_default();
        let said = reasons(&text);
        let answered = match elsewhere {
            Some(host) => format!("{host}, where it sent us, answered {status}{said}"),
            None if status == StatusCode::UNAUTHORIZED => {
                let token =
                    self.authorization().is_some_and(|value| value.as_bytes().starts_with(b"Bearer "));
                let login = self.login();
                let meaning = if token { login.denied(self.name()) } else { login.refused(self.name()) };
                return self.client.error(act, Trouble::Refused, format!("{meaning}{said}"));
            }
            None => format!("it answered {status}{said}"),
        };
        match status {
            StatusCode::NOT_FOUND => self.client.error(act, Trouble::Refused, format!("it has none{said}")),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                self.client.error(act, Trouble::Away, answered)
            }
            status if status.is_server_error() => self.client.error(act, Trouble::Away, answered),
            _ => self.client.error(act, Trouble::Refused, answered),
        }
    }
}

/// A refusal's own words, in brackets: of what a stranger writes, one short line.
fn reasons(text: &[u8]) -> String {
    let Ok(refusal) = serde_json::from_slice::<Refusal>(text) else { return String::new() };
    let one = |reason: &Reason| match reason.message.as_str() {
        "" => reason.code.clone(),
        message => message.to_owned(),
    };
    let words = refusal.errors.iter().map(one).collect::<Vec<_>>().join(", ");
    let words = said(&words);
    if words.is_empty() { words } else { format!(" ({words})") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers each request as it is told; gives its address and what it was sent.
    async fn server(answer: impl Fn(&str) -> String + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap().to_string(), Arc::new(Mutex::new(Vec::new())));
        let requests = seen.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut bytes = vec![0; 1 << 14];
                let count = client.read(&mut bytes).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&bytes[..count]).into_owned();
                let answer = answer(&request);
                requests.lock().unwrap().push(request);
                let _ = client.write_all(answer.replace('\n', "\r\n").as_bytes()).await;
            }
        });
        (address, seen)
    }

    fn source(registry: &str, folder: &std::path::Path) -> Source {
        let settings = Settings {
            policy: provisioning::PullPolicy::Always,
            named: std::collections::BTreeMap::new(),
            docker_config: folder.join("config.json"),
            patience: Duration::from_secs(10),
        };
        let named = provisioning::Registry { insecure: true, ..Default::default() };
        Source::new(Place::new(registry, "a/b"), &named, &settings).unwrap()
    }

    #[tokio::test]
    async fn a_password_stays_with_its_server() {
        let folder = tempfile::tempdir().unwrap();
        // Where it is sent to asks for a password, too: it must not get this one.
        let (elsewhere, asked) = server(|request| match request.contains("/good") {
            true => "HTTP/1.1 200 OK\ncontent-length: 4\nconnection: close\n\nblob".into(),
            false => {
                "HTTP/1.1 401 No\nwww-authenticate: Basic realm=x\ncontent-length: 0\nconnection: close\n\n"
                    .into()
            }
        })
        .await;
        let to = elsewhere.clone();
        let (home, _) = server(move |request| {
            let known = request.contains("authorization: Basic dTpw");
            let good = if request.contains("/blobs/good") { "good" } else { "bad" };
            match known {
                true => format!("HTTP/1.1 307 Go\nlocation: http://{to}/{good}\ncontent-length: 0\nconnection: close\n\n"),
                false => "HTTP/1.1 401 No\nwww-authenticate: Basic realm=x\ncontent-length: 0\nconnection: close\n\n".into(),
            }
        })
        .await;
        let auths = serde_json::json!({"auths": {&home: {"auth": "dTpw"}, &elsewhere: {"auth": "dTpw"}}});
        std::fs::write(folder.path().join("config.json"), auths.to_string()).unwrap();
        let source = source(&home, folder.path());
        let answer = source.get("test", "blobs/good", &HeaderMap::new()).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "blob");
        let refused = source.get("test", "blobs/bad", &HeaderMap::new()).await.unwrap_err();
        assert!(!refused.is_away(), "{refused}");
        assert!(refused.to_string().contains("127.0.0.1, where it sent us, answered 401"), "{refused}");
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 2);
        assert!(asked.iter().all(|request| !request.to_lowercase().contains("authorization")), "{asked:?}");
    }

    #[tokio::test]
    async fn who_has_a_token_and_gets_nothing_is_told_what_that_means() {
        let folder = tempfile::tempdir().unwrap();
        let (tokens, _) =
            server(|_| "HTTP/1.1 200 OK\ncontent-length: 13\nconnection: close\n\n{\"token\":\"x\"}".into())
                .await;
        let (home, asked) = server(move |_| {
            let body = r#"{"errors":[{"code":"DENIED"}]}"#;
            format!(
                "HTTP/1.1 401 No\nwww-authenticate: Bearer realm=\"http://{tokens}/\"\ncontent-length: {}\n\
                 connection: close\n\n{body}",
                body.len()
            )
        })
        .await;
        let nobody = source(&home, folder.path()).manifest("1").await.unwrap_err().to_string();
        assert!(nobody.contains("or there is no such image (DENIED)"), "{nobody}");
        let auths = serde_json::json!({"auths": {&home: {"auth": "dTpw"}}});
        std::fs::write(folder.path().join("config.json"), auths.to_string()).unwrap();
        let user = source(&home, folder.path()).manifest("1").await.unwrap_err().to_string();
        assert!(user.contains("no such image, or the user \"u\" may not pull it (DENIED)"), "{user}");
        assert_eq!(asked.lock().unwrap().len(), 4);
    }

    #[tokio::test]
    async fn a_circle_of_redirects_ends() {
        let folder = tempfile::tempdir().unwrap();
        let round = "HTTP/1.1 302 Go\nlocation: /v2/again?signature=swordfish\ncontent-length: 0\nconnection: close\n\n";
        let (home, asked) = server(move |_| round.to_owned()).await;
        let refused =
            source(&home, folder.path()).get("test", "blobs/x", &HeaderMap::new()).await.unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("cannot follow") && !text.contains("swordfish"), "{text}");
        assert_eq!(asked.lock().unwrap().len(), REDIRECTS + 1);
    }

    #[tokio::test]
    async fn a_manifest_without_end_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let body = "x".repeat(LARGEST + 1);
        let answer = format!("HTTP/1.1 200 OK\ncontent-length: {}\nconnection: close\n\n{body}", body.len());
        let (home, _) = server(move |_| answer.clone()).await;
        let refused = source(&home, folder.path()).manifest("1").await.unwrap_err();
        assert!(refused.to_string().contains("larger than 4194304 bytes"), "{refused}");
        // Another one than was asked for.
        let other =
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        let answer =
            format!("HTTP/1.1 200 OK\ncontent-length: {}\nconnection: close\n\n{other}", other.len());
        let (home, _) = server(move |_| answer.clone()).await;
        let wanted = format!("sha256:{}", "0".repeat(64));
        let refused = source(&home, folder.path()).manifest(&wanted).await.unwrap_err();
        assert!(refused.to_string().contains("has the digest sha256:"), "{refused}");
    }

    #[test]
    fn a_refusals_words_are_one_short_line() {
        let text = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest\nunknown","detail":{}},{"code":"X"}]}"#;
        assert_eq!(reasons(text.as_bytes()), " (manifest unknown, X)");
        for none in ["", "<html>", "{}", r#"{"errors":[]}"#] {
            assert_eq!(reasons(none.as_bytes()), "");
        }
        let long = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "x".repeat(9999));
        assert_eq!(reasons(long.as_bytes()).len(), 203);
    }
}
