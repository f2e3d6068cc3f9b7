//! Delivers an answer to where the caller wants it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{
    CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, USER_AGENT,
};
use hyper::http::response::Parts;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use provisioning::{Egress, Namespace};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;

use super::Worker;
use super::destination::{Destination, find};
use super::options::Options;
use super::outcome::Met;
use crate::error::Result;
use crate::gateway::{CALL_ID, target};
use crate::network::Subnet;
use crate::trust;
use crate::upstream::{BodyError, Outgoing, Received};

const AGENT: &str = concat!("bothy-queue-worker/", env!("CARGO_PKG_VERSION"));

/// A larger answer is passed on as it comes, once; a smaller one is held, and sent again where that fails.
const HELD_BYTES: usize = 64 << 10;
/// Pauses between the tries.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// How long a connection, and all of a try, may take.
const CONNECT: Duration = Duration::from_secs(5);
const WHOLE: Duration = Duration::from_secs(60);
/// A try that took longer is the last one.
const QUICK: Duration = Duration::from_secs(10);

/// An answer to be delivered.
pub struct Delivery {
    pub parts: Parts,
    pub body: Received,
    /// When its call was sent.
    pub began: Instant,
    /// Attempts before this one, and the most that there could have been.
    pub retries: u32,
    pub most: u32,
}

/// Delivers answers.
pub struct Callbacks {
    tls: TlsConnector,
    functions: Subnet,
    egress: Egress,
}

/// A body that is sent to somebody else.
type Sent = UnsyncBoxBody<Bytes, BodyError>;

/// What is sent.
enum Content {
    Held(Bytes),
    Passing(Sent),
}

impl Callbacks {
    /// With the public authorities' certificates.
    ///
    /// # Errors
    /// TLS cannot be had.
    pub fn new(options: &Options, egress: Egress) -> Result<Self> {
        let config = trust::settings(trust::public())?;
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), functions: options.subnet, egress })
    }

    /// Delivers an answer, or reads it to its end where nobody wants it. Gives a note where it was not delivered: the call is
    /// over all the same.
    ///
    /// # Errors
    /// The answer broke off; in words.
    pub async fn deliver(
        &self,
        worker: &Worker,
        met: &Met<'_>,
        delivery: Delivery,
    ) -> Result<Option<String>, String> {
        let Delivery { parts, mut body, began, retries, most } = delivery;
        let broke = |error: hyper::Error| format!("the answer broke off: {error}");
        let end = tokio::time::Instant::from_std(began) + worker.patience;
        let late = |_| "the answer came to no end".to_owned();
        let Some(url) = &met.call.callback else {
            timeout_at(end, read_out(body)).await.map_err(late)?.map_err(broke)?;
            return Ok(None);
        };
        let mut held = BytesMut::new();
        let ended = loop {
            match timeout_at(end, body.frame()).await.map_err(late)? {
                None => break true,
                Some(frame) => {
                    if let Ok(data) = frame.map_err(broke)?.into_data() {
                        held.extend_from_slice(&data);
                    }
                    if held.len() > HELD_BYTES {
                        break false;
                    }
                }
            }
        };
        let headers = headers(parts, met, began, (retries, most));
        let content = match ended {
            true => Content::Held(held.freeze()),
            false => Content::Passing(passing(held.freeze(), body)),
        };
        let sent = self.send(worker, url, &headers, content).await;
        Ok(sent.err().map(|error| {
            // Without the rest: there may be a secret in it.
            let uri: Option<Uri> = url.parse().ok();
            let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
            tracing::warn!("the answer of {} is not delivered to {host}: {error}", met.lane.route.key);
            format!("its answer was not delivered: {error}")
        }))
    }

    async fn send(
        &self,
        worker: &Worker,
        url: &str,
        headers: &HeaderMap,
        content: Content,
    ) -> Result<(), String> {
        let uri: Uri = url.parse().map_err(|_| "it is no URL".to_owned())?;
        let bytes = match content {
            Content::Passing(body) => return self.once(worker, &uri, headers, Content::Passing(body)).await,
            Content::Held(bytes) => bytes,
        };
        // A place where no answer may go stays one.
        find(&uri, self.functions, &self.egress).await?;
        let mut pauses = PAUSES.into_iter();
        loop {
            let began = Instant::now();
            match (self.once(worker, &uri, headers, Content::Held(bytes.clone())).await, pauses.next()) {
                // Whoever takes long takes long again.
                (Err(_), Some(pause)) if began.elapsed() < QUICK => tokio::time::sleep(pause).await,
                (sent, _) => return sent,
            }
        }
    }

    /// One try. A refusal that will stay one is not tried again, and no failure.
    async fn once(
        &self,
        worker: &Worker,
        uri: &Uri,
        headers: &HeaderMap,
        content: Content,
    ) -> Result<(), String> {
        let query = uri.query();
        let mut head = Request::new(());
        *head.method_mut() = Method::POST;
        *head.uri_mut() = target(uri.path(), query).ok_or("its path cannot be sent")?;
        *head.headers_mut() = headers.clone();
        let host = uri.authority().and_then(|authority| authority.as_str().rsplit('@').next());
        let host = host.and_then(|host| HeaderValue::try_from(host).ok()).ok_or("it has no host")?;
        head.headers_mut().insert(HOST, host);
        let (head, ()) = head.into_parts();
        let sending = async {
            match find(uri, self.functions, &self.egress).await? {
                Destination::Gateway => {
                    let body = match content {
                        Content::Held(bytes) => Outgoing::whole(bytes),
                        Content::Passing(body) => Outgoing::stream(body, None),
                    };
                    let request = Request::from_parts(head, body);
                    let sent = worker.upstream.send(worker.options.gateway, request, false).await;
                    let response = sent.map_err(|error| error.to_string())?;
                    let (status, body) = (response.status(), response.into_body());
                    // So that the connection can be used again; what it says is nobody's business.
                    let _ = read_out(body).await;
                    Ok(status)
                }
                Destination::Elsewhere(addresses) => {
                    let body = match content {
                        Content::Held(bytes) => {
                            http_body_util::Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
                        }
                        Content::Passing(body) => body,
                    };
                    self.elsewhere(uri, &addresses, Request::from_parts(head, body)).await
                }
            }
        };
        // A function that is called has the time that functions have.
        let whole = WHOLE.max(worker.patience);
        let status = tokio::time::timeout(whole, sending).await;
        let status = status.unwrap_or_else(|_| Err(format!("it took longer than {} s", whole.as_secs())))?;
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                Err(format!("it was answered with {status}"))
            }
            status if status.is_server_error() => Err(format!("it was answered with {status}")),
            status => {
                if !status.is_success() {
                    let host = uri.host().unwrap_or_default();
                    tracing::warn!("an answer that was delivered to {host} was answered with {status}");
                }
                Ok(())
            }
        }
    }

    async fn elsewhere(
        &self,
        uri: &Uri,
        addresses: &[SocketAddr],
        request: Request<Sent>,
    ) -> Result<StatusCode, String> {
        let connecting = tokio::time::timeout(CONNECT, TcpStream::connect(addresses)).await;
        let stream = match connecting {
            Ok(connected) => connected.map_err(|error| format!("no connection: {error}"))?,
            Err(_) => return Err(format!("no connection in {} s", CONNECT.as_secs())),
        };
        if uri.scheme_str() != Some("https") {
            return post(stream, request).await;
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| "its host cannot have a certificate".to_owned())?;
        let connecting = tokio::time::timeout(CONNECT, self.tls.connect(name, stream)).await;
        let stream = match connecting {
            Ok(connected) => connected.map_err(|error| format!("TLS: {error}"))?,
            Err(_) => return Err(format!("no TLS in {} s", CONNECT.as_secs())),
        };
        post(stream, request).await
    }
}

/// Reads a body to its end.
///
/// # Errors
/// It broke off.
pub async fn read_out(mut body: Received) -> Result<(), hyper::Error> {
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

/// One request on a connection of its own.
async fn post(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Sent>,
) -> Result<StatusCode, String> {
    let failed = |error: hyper::Error| crate::queue::causes(&error);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(failed);
    // What it says is nobody's business.
    connection.abort();
    Ok(response?.status())
}

/// A large answer: what came of it, and the rest as it comes.
fn passing(first: Bytes, rest: Received) -> Sent {
    let first = stream::iter([Ok(Frame::data(first))]);
    let rest = rest.into_data_stream().map(|data| data.map(Frame::data).map_err(BodyError::from));
    BodyExt::boxed_unsync(StreamBody::new(first.chain(rest)))
}

/// The answer's headers, and those that tell about it.
fn headers(parts: Parts, met: &Met<'_>, began: Instant, (retries, most): (u32, u32)) -> HeaderMap {
    let mut headers = parts.headers;
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
    let key = &met.lane.route.key;
    let name = if key.namespace == Namespace::default() { key.name.to_string() } else { key.to_string() };
    for (header, value) in [
        ("x-duration-seconds", format!("{:.6}", began.elapsed().as_secs_f64())),
        ("x-function-status", parts.status.as_u16().to_string()),
        ("x-function-name", name),
        ("x-retry", retries.to_string()),
        ("x-retry-max", most.to_string()),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(header), value);
        }
    }
    if let Ok(id) = HeaderValue::try_from(met.call.id.as_str()) {
        headers.insert(CALL_ID, id);
    }
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers
}
