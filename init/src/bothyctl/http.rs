//! HTTP to a gateway: one request a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::account::Account;
use crate::error::{Error, Result};

/// How long a machine may take to take a connection, and to begin its answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Most of an answer's head, or of a text that is no answer of ours.
const LARGEST_HEAD_BYTES: u64 = 16 << 10;
/// Most of an answer that is read as a whole.
const LARGEST_ANSWER_BYTES: u64 = 16 << 20;

/// Where a gateway listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    name: String,
    port: u16,
}

impl Host {
    /// This machine's own.
    pub(super) fn own() -> Self {
        Self { name: "127.0.0.1".to_owned(), port: crate::board::GATEWAY_PORT }
    }

    /// Reads `http://HOST:PORT`; `http://` and the gateway's port 8080 may be left out.
    pub(super) fn parse(text: &str) -> std::result::Result<Self, String> {
        if text.starts_with("https://") {
            return Err(format!(
                "bothyctl speaks no TLS yet; reach the gateway over http:// in a network that you trust, or through a \
                 tunnel of yours: --host {} (where tls_only is set, use the machine's own console)",
                text.replacen("https", "http", 1)
            ));
        }
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let expected = || format!("{text:?} names no machine; expected http://ADDRESS:PORT or ADDRESS");
        let (name, port) = match rest.rsplit_once(':') {
            // [::1]:8080 has its last colon outside of the brackets.
            Some((name, port)) if !port.contains(']') => (name, port.parse().map_err(|_| expected())?),
            _ => (rest, crate::board::GATEWAY_PORT),
        };
        let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let odd = |c: char| !(c.is_ascii_alphanumeric() || "-._:%".contains(c));
        if name.is_empty() || name.contains(odd) || (name.contains(':') && !rest.starts_with('[')) {
            return Err(expected());
        }
        Ok(Self { name: name.to_owned(), port })
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, port } = self;
        if name.contains(':') {
            write!(f, "http://[{name}]:{port}")
        } else {
            write!(f, "http://{name}:{port}")
        }
    }
}

/// A gateway, and who we are there.
pub(super) struct Gateway {
    /// Where it is.
    pub host: Host,
    /// Who we are.
    pub account: Account,
}

/// An answer that was read as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// The status code.
    pub status: u16,
    /// The body.
    pub text: String,
}

impl Gateway {
    /// Sends a request; gives the whole answer, whatever it says, but for one that nobody is let in by.
    pub(super) fn ask(&self, method: &str, path: &str) -> Result<Reply> {
        let (status, reader) = self.begin(method, path, None)?;
        let status = status.ok_or_else(|| self.failed(NO_GATEWAY.to_owned()))?;
        let mut bytes = Vec::new();
        let read = reader.take(LARGEST_ANSWER_BYTES).read_to_end(&mut bytes);
        read.map_err(|error| self.failed(format!("the answer broke off: {error}")))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if status == 401 { Err(self.refused(status, &text)) } else { Ok(Reply { status, text }) }
    }

    /// Sends a request; gives the status code and the body, which ends with the connection (HTTP/1.0).
    pub(super) fn begin(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> Result<(Option<u16>, BufReader<TcpStream>)> {
        let mut stream = connect(&self.host).map_err(|error| self.failed(format!("connect: {error}")))?;
        let account = format!("{}:{}", self.account.user, self.account.password);
        let mut head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: Basic {}\r\n",
            self.host.name,
            base64(account.as_bytes())
        );
        if let Some(body) = body {
            head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        } else if method != "GET" {
            head += "Content-Length: 0\r\n";
        }
        let text = format!("{head}\r\n{}", body.unwrap_or_default());
        let broken = |error: std::io::Error| self.failed(format!("send the request: {error}"));
        stream.set_read_timeout(Some(ANSWER_LIMIT)).map_err(broken)?;
        stream.write_all(text.as_bytes()).map_err(broken)?;
        let mut reader = BufReader::new(stream);
        let status =
            read_head(&mut reader).map_err(|error| self.failed(format!("it does not answer: {error}")))?;
        Ok((status, reader))
    }

    /// What an answer means that is not what was asked for.
    pub(super) fn refused(&self, status: u16, text: &str) -> Error {
        self.failed(match status {
            401 => format!(
                "wrong user or password for {}; `bothyctl login --host {}` asks and keeps them",
                self.account.user, self.host
            ),
            status => format!("it answers {status} {}", text.trim()),
        })
    }

    /// An error of this gateway.
    pub(super) fn failed(&self, reason: String) -> Error {
        Error::Host { url: self.host.to_string(), reason }
    }
}

/// What is said where something else than HTTP is spoken.
pub(super) const NO_GATEWAY: &str = "what answers there is no gateway";

/// A text as a part of a path or a query (RFC 3986, 2.1).
pub(super) fn encoded(text: &str) -> String {
    let mut coded = String::new();
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                coded.push(char::from(byte))
            }
            other => coded += &format!("%{other:02X}"),
        }
    }
    coded
}

fn connect(host: &Host) -> std::io::Result<TcpStream> {
    let mut last = None;
    for address in (host.name.as_str(), host.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| std::io::ErrorKind::NotFound.into()))
}

/// Reads up to the empty line; gives the status code.
fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<u16>> {
    let mut head = reader.take(LARGEST_HEAD_BYTES);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
            return Ok(status);
        }
    }
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word =
            group.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let index = (word >> (18 - 6 * place) & 63) as usize;
            let letter = ALPHABET.get(index).filter(|_| place <= group.len());
            text.push(letter.map_or('=', |letter| char::from(*letter)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (text, wanted) in [
            ("http://10.0.2.15:8080", "http://10.0.2.15:8080"),
            ("http://barn/", "http://barn:8080"),
            ("barn.local:81", "http://barn.local:81"),
            ("http://[fe80::1]:90", "http://[fe80::1]:90"),
            ("[::1]", "http://[::1]:8080"),
        ] {
            assert_eq!(Host::parse(text).unwrap().to_string(), wanted);
        }
        assert!(Host::parse("https://barn").unwrap_err().contains("--host http://barn"));
        for bad in ["", "http://", "http://a b", "http://a:x", "ftp://a", "http://a/b", "fe80::1"] {
            assert!(Host::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn base64_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn texts_in_paths() {
        assert_eq!(encoded("a-7.b_~"), "a-7.b_~");
        assert_eq!(encoded("a/b?c=d&e f%ä"), "a%2Fb%3Fc%3Dd%26e%20f%25%C3%A4");
    }
}
