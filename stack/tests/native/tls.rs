//! The TLS port: its certificate, which comes and goes while connections stay, and its socket, which outlives the
//! gateway.

use std::fs;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper::Method;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};

use super::invocation::{PLAIN, start};
use super::line::{Line, empty, handshake};
use super::namespaces::inside;
use super::sockets;
use super::tokens::make_certificates;
use super::{PATIENCE, ready};
use crate::lab::Lab;

const SECURE: &str = "127.0.0.1:443";

fn address() -> SocketAddr {
    SECURE.parse().unwrap()
}

/// Two authorities, each with a certificate of its own.
fn authorities(lab: &Lab) -> [PathBuf; 2] {
    ["first", "second"].map(|name| {
        let folder = lab.folder.join(name);
        fs::create_dir(&folder).unwrap();
        make_certificates(&folder);
        folder
    })
}

/// Puts a file of an authority into its place.
fn put(lab: &Lab, authority: &Path, file: &str) {
    fs::write(lab.folder.join("new"), fs::read(authority.join(file)).unwrap()).unwrap();
    fs::rename(lab.folder.join("new"), lab.folder.join(file)).unwrap();
}

fn configure(lab: &Lab, more: &str) {
    let folder = lab.folder.display();
    let text = format!(
        "version = 1\n[gateway]\ntls_certificate = \"{folder}/server.pem\"\ntls_key = \"{folder}/server.key\"\n{more}"
    );
    fs::write(lab.folder.join("bothy.toml"), text).unwrap();
}

/// Waits until a new connection finds a certificate of that authority.
async fn until_signed_by(authority: &Path) {
    let begun = Instant::now();
    while handshake(address(), &authority.join("ca.pem"), &[b"h2"]).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "no certificate of {}", authority.display());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn signed_by(authority: &Path) -> bool {
    handshake(address(), &authority.join("ca.pem"), &[b"h2"]).await.is_ok()
}

#[test]
fn certificates_come_and_go_and_connections_stay() {
    inside("tls::certificates_come_and_go_and_connections_stay", async |mut lab| {
        let [first, second] = authorities(&lab);
        configure(&lab, "");
        let path = lab.folder.join("notify");
        let supervisor = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        lab.notify = Some(path);
        let stage = start(&mut lab).await;
        // Nothing is there: nothing is served, and everything else is.
        lab.until_said("no TLS connection can be made until this is put right: read ").await;
        heard(&supervisor, "X_NOTICE=TLS: no TLS connection can be made").await;
        assert!(!signed_by(&first).await);
        assert_eq!(Line::plain(PLAIN.parse().unwrap(), 1).await.get("/function/f/").await.unwrap().0, 200);
        for file in ["server.pem", "server.key"] {
            put(&lab, &first, file);
        }
        until_signed_by(&first).await;
        heard(&supervisor, "X_NOTICE=").await;
        lab.until_said("may read the private key").await;

        let mut lines = Vec::new();
        for version in [1, 2] {
            let mut line = Line::secure(address(), &first.join("ca.pem"), version).await;
            assert_eq!(line.get("/function/f/a%2Fb").await.unwrap().1.lines().next(), Some("GET /a%2Fb"));
            lines.push(line);
        }
        sockets::websocket(&mut Line::secure(address(), &first.join("ca.pem"), 1).await).await;
        stage.until_left().await;
        // Who names no protocol speaks HTTP/1.1, and who speaks no TLS is not served.
        let stream = handshake(address(), &first.join("ca.pem"), &[]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), None);
        assert_eq!(Line::over(stream, 1).await.get("/healthz").await.unwrap().0, 200);
        assert!(Line::plain(address(), 1).await.get("/").await.is_err());

        // A certificate without its key, then a file that is none: the old pair stays.
        put(&lab, &second, "server.pem");
        lab.until_said("server.key does not belong to the certificate in").await;
        assert!(signed_by(&first).await);
        fs::write(lab.folder.join("server.key"), "-----BEGIN ENCRYPTED PRIVATE KEY-----\n").unwrap();
        lab.until_said("server.key is encrypted").await;
        assert!(signed_by(&first).await);
        put(&lab, &second, "server.key");
        until_signed_by(&second).await;
        assert!(!signed_by(&first).await);
        for line in &mut lines {
            assert_eq!(line.get("/function/f/").await.unwrap().0, 200, "a connection was dropped");
        }

        // At once on SIGHUP.
        for file in ["server.pem", "server.key"] {
            put(&lab, &first, file);
        }
        let gateway = nix::unistd::Pid::from_raw(lab.processes("/stack")[0]);
        nix::sys::signal::kill(gateway, nix::sys::signal::Signal::SIGHUP).unwrap();
        until_signed_by(&first).await;

        // A certificate that ends soon.
        let command = "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3 -extfile server.ext \
                       -out server.pem";
        super::tokens::run("openssl", &command.split_whitespace().collect::<Vec<_>>(), &first);
        put(&lab, &first, "server.pem");
        lab.until_said(" days more").await;
        heard(&supervisor, "X_NOTICE=TLS: the certificate in ").await;
        for line in &mut lines {
            assert_eq!(line.get("/function/f/").await.unwrap().0, 200);
        }
    });
}

#[test]
fn plain_http_for_the_machine_alone() {
    inside("tls::plain_http_for_the_machine_alone", async |mut lab| {
        let [first, _] = authorities(&lab);
        for file in ["server.pem", "server.key"] {
            put(&lab, &first, file);
        }
        configure(&lab, "tls_only = true\n");
        start(&mut lab).await;
        // Two addresses of this machine; a stranger is whoever calls from one to the other.
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        for last in [1, 2] {
            let address = std::net::Ipv4Addr::new(192, 0, 2, last).into();
            handle.address().add(1, address, 32).execute().await.unwrap();
        }
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("192.0.2.2:0".parse().unwrap()).unwrap();
        let stream = socket.connect("192.0.2.1:8080".parse().unwrap()).await.unwrap();
        let mut stranger = Line::over(stream, 1).await;
        for path in ["/function/f/", "/healthz", "/system/info"] {
            let (status, text) = stranger.get(path).await.unwrap();
            assert_eq!(status, 403);
            assert!(text.contains("use https, port 443"), "{text}");
        }
        for own in ["192.0.2.1:8080", PLAIN] {
            let status = Line::plain(own.parse().unwrap(), 1).await.get("/function/f/").await.unwrap().0;
            assert_eq!(status, 200, "{own}");
        }
        // A function calls the gateway.
        let variables = json!({"mode": "http", "upstream_url": "http://10.62.0.1:8080"});
        let body = json!({"service": "caller", "image": super::IMAGE, "envProcess": "/bin/sleep 100000",
                          "envVars": variables});
        lab.expect(200, Method::POST, "/system/functions", &body.to_string()).await;
        lab.expect(200, Method::GET, "/function/caller/function/f/", "").await;
        let mut line = Line::secure(address(), &first.join("ca.pem"), 2).await;
        let answer = line.send(Method::GET, "/function/f/", &[], empty()).await.unwrap();
        assert_eq!(answer.status(), 200);
    });
}

/// The descriptor that comes with a message that has those words.
async fn stored(socket: &std::os::unix::net::UnixDatagram, words: &str) -> OwnedFd {
    heard(socket, words).await.expect("nothing came along")
}

/// Waits for a message that begins with those words; gives the descriptor that came along.
pub async fn heard(socket: &std::os::unix::net::UnixDatagram, words: &str) -> Option<OwnedFd> {
    let begun = Instant::now();
    loop {
        let mut bytes = vec![0; 4096];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 4]);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC,
        );
        if let Ok(message) = received {
            let rights = message.cmsgs().unwrap().find_map(|message| match message {
                ControlMessageOwned::ScmRights(found) => found.first().copied(),
                _ => None,
            });
            let count = message.bytes;
            // SAFETY: it was just given to us.
            let rights = rights.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
            if String::from_utf8_lossy(&bytes[..count]).starts_with(words) {
                return rights;
            }
            continue;
        }
        assert!(begun.elapsed() < PATIENCE, "nobody says {words}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn nobody_is_refused_while_the_gateway_is_away() {
    inside("tls::nobody_is_refused_while_the_gateway_is_away", async |mut lab| {
        let [first, _] = authorities(&lab);
        for file in ["server.pem", "server.key"] {
            put(&lab, &first, file);
        }
        configure(&lab, "");
        let path = lab.folder.join("notify");
        let supervisor = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        lab.notify = Some(path);
        start(&mut lab).await;
        let socket = stored(&supervisor, "FDSTORE=1\nFDNAME=https").await;
        lab.kill_gateway();
        // Connected while nobody is there to accept.
        let authority = first.join("ca.pem");
        let early = Line::secure(address(), &authority, 2);
        tokio::pin!(early);
        let waited = tokio::time::timeout(Duration::from_millis(300), early.as_mut()).await;
        assert!(waited.is_err(), "somebody answered");
        lab.handed = Some(("https", socket));
        lab.start_gateway();
        ready(&lab).await;
        until_signed_by(&first).await;
        assert_eq!(early.await.get("/healthz").await.unwrap().0, 200);

        // Elsewhere now: the old one is closed, here and there.
        lab.stop_gateway();
        configure(&lab, "tls_listen = \"127.0.0.1:8443\"\n");
        lab.start_gateway();
        ready(&lab).await;
        let other = stored(&supervisor, "FDSTORE=1\nFDNAME=https").await;
        let other = std::net::TcpListener::from(other);
        assert_eq!(other.local_addr().unwrap().port(), 8443);
        lab.handed = None;
        assert!(TcpStream::connect(SECURE).await.is_err(), "somebody has the old socket");
    });
}
