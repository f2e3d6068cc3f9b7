//! A client's connection, of either version of HTTP, over TCP or TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub type Sent = UnsyncBoxBody<Bytes, Infallible>;

/// A connection; it is closed when it is dropped.
pub struct Line {
    sender: Sender,
    /// The host that is asked for.
    host: String,
    connection: tokio::task::JoinHandle<()>,
}

enum Sender {
    One(http1::SendRequest<Sent>),
    Two(http2::SendRequest<Sent>),
}

impl Line {
    /// Plain HTTP: 1, or 2 without a word before (h2c).
    pub async fn plain(address: SocketAddr, version: u8) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::over(stream, version).await
    }

    /// The same over TLS, which must agree on it.
    pub async fn secure(address: SocketAddr, authority: &Path, version: u8) -> Self {
        let protocol: &[u8] = if version == 2 { b"h2" } else { b"http/1.1" };
        let stream = handshake(address, authority, &[protocol]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        Self::over(stream, version).await
    }

    /// Over whatever there is.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, version: u8) -> Self {
        let stream = TokioIo::new(stream);
        if version == 2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            let connection = tokio::spawn(async move { drop(connection.await) });
            return Self { sender: Sender::Two(sender), host: "bothy".to_owned(), connection };
        }
        let (sender, connection) = http1::handshake(stream).await.unwrap();
        let connection = tokio::spawn(async move { drop(connection.with_upgrades().await) });
        Self { sender: Sender::One(sender), host: "bothy".to_owned(), connection }
    }

    /// Asks for another host.
    pub fn called(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// Sends a request; the answer's body is still to come.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Sent,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let request = Request::builder().method(method);
        let mut request = match self.sender {
            Sender::One(_) => request.uri(path).header("host", &self.host),
            Sender::Two(_) => request.uri(format!("http://{}{path}", self.host)),
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).unwrap();
        match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// A GET; gives status and text.
    pub async fn get(&mut self, path: &str) -> Result<(u16, String), hyper::Error> {
        let answer = self.send(Method::GET, path, &[], empty()).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// No body.
pub fn empty() -> Sent {
    Full::new(Bytes::new()).boxed_unsync()
}

/// Connects with TLS to the server of a certificate for 127.0.0.1 of that authority.
pub async fn handshake(
    address: SocketAddr,
    authority: &Path,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
}
