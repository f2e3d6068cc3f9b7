//! The way to a machine: its control socket, or its gateway over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

use super::account::Account;
use crate::error::{Error, Result};
use crate::request::{Request, SOCKET};

/// How long a machine may take to take a connection, and to begin its answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Most of an answer's head, or of a text that is no answer of ours.
const LARGEST_HEAD_BYTES: u64 = 16 << 10;
/// Where the gateway takes requests.
const PATH: &str = "/system/machine";

/// A machine.
pub(super) enum Machine {
    /// This one.
    Local,
    /// One behind its gateway.
    Remote(Host, Account),
}

/// Where a gateway listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    name: String,
    port: u16,
}

impl Host {
    /// Reads `http://HOST:PORT`; `http://` and the gateway's port 8080 may be left out.
    pub(super) fn parse(text: &str) -> std::result::Result<Self, String> {
        if text.starts_with("https://") {
            return Err(format!(
                "the gateway speaks no TLS yet; reach it over http:// in a network that you trust, \
                 or through a tunnel of yours: --host {}",
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

impl Machine {
    /// Asks, and gives each object of the answer to `each`.
    pub(super) fn ask(&self, request: &Request, each: &mut dyn FnMut(Value) -> Result<()>) -> Result<()> {
        match self {
            Self::Local => {
                let failed = |source| Error::Ask { path: SOCKET.into(), source };
                let mut stream = UnixStream::connect(SOCKET).map_err(failed)?;
                stream.write_all(format!("{}\n", request.line()).as_bytes()).map_err(failed)?;
                answers(BufReader::new(stream), each)
            }
            Self::Remote(host, account) => {
                let stream = post(host, account, &request.line())?;
                answers(stream, each)
            }
        }
    }

    /// The same for an answer of one object.
    pub(super) fn ask_one(&self, request: &Request) -> Result<Value> {
        let mut found = None;
        self.ask(request, &mut |value| {
            found.get_or_insert(value);
            Ok(())
        })?;
        found.ok_or_else(|| Error::Answer("the answer is empty".to_owned()))
    }

    /// Whether it is another one.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Self::Remote(..))
    }
}

/// Reads lines up to the one that ends the answer.
fn answers(reader: impl BufRead, each: &mut dyn FnMut(Value) -> Result<()>) -> Result<()> {
    for line in reader.lines() {
        let line = line.map_err(|error| Error::Answer(format!("the answer broke off: {error}")))?;
        let value: Value = serde_json::from_str(&line)
            .map_err(|error| Error::Answer(format!("the answer has a line that is no JSON: {error}")))?;
        if let Some(error) = value.get("error").and_then(Value::as_str) {
            return Err(Error::Answer(error.to_owned()));
        }
        if value.get("done") == Some(&Value::Bool(true)) {
            return Ok(());
        }
        each(value)?;
    }
    Err(Error::Answer("the answer broke off".to_owned()))
}

/// Sends a request to a gateway; gives the body of the answer. HTTP/1.0: the body ends with the connection, and our
/// own last line tells whether it is whole.
fn post(host: &Host, account: &Account, line: &str) -> Result<BufReader<TcpStream>> {
    let failed = |reason: String| Error::Host { url: host.to_string(), reason };
    let mut stream = connect(host).map_err(|error| failed(format!("connect: {error}")))?;
    let head = format!(
        "POST {PATH} HTTP/1.0\r\nHost: {}\r\nAuthorization: Basic {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        host.name,
        base64(format!("{}:{}", account.user, account.password).as_bytes()),
        line.len()
    );
    let broken = |error: std::io::Error| failed(format!("send the request: {error}"));
    stream.set_read_timeout(Some(ANSWER_LIMIT)).map_err(broken)?;
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(line.as_bytes())).map_err(broken)?;
    let no_answer = |error: std::io::Error| failed(format!("it does not answer: {error}"));
    let mut reader = BufReader::new(stream);
    let status = read_head(&mut reader).map_err(no_answer)?;
    if status == Some(200) {
        // From here on silence means that there is nothing new.
        reader.get_ref().set_read_timeout(None).map_err(no_answer)?;
        return Ok(reader);
    }
    let mut text = String::new();
    let _ = reader.take(LARGEST_HEAD_BYTES).read_to_string(&mut text);
    Err(failed(match status {
        Some(401) => format!(
            "wrong user or password for {}; `bothyctl login --host {host}` asks and keeps them",
            account.user
        ),
        Some(404) => {
            "it has no such thing as /system/machine; is it a Bothy machine, and not an old one?".to_owned()
        }
        Some(status) => format!("it answers {status} {}", text.trim()),
        None => "what answers there is no gateway".to_owned(),
    }))
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
    use std::net::TcpListener;

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

    fn remote(answer: &'static str) -> (Machine, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = Host::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut text, mut piece) = (Vec::new(), [0; 1024]);
            while !text.ends_with(b"}") {
                let length = stream.read(&mut piece).unwrap();
                text.extend(&piece[..length]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(text).unwrap()
        });
        (Machine::Remote(host, Account { user: "admin".into(), password: "hay".into() }), thread)
    }

    #[test]
    fn a_gateway_is_asked_with_credentials() {
        let (machine, thread) =
            remote("HTTP/1.0 200 OK\r\nx: y\r\n\r\n{\"a\":1}\n{\"a\":2}\n{\"done\":true}\n");
        let mut seen = Vec::new();
        let asked = machine.ask(&Request::Status {}, &mut |value| {
            seen.push(value["a"].as_u64().unwrap());
            Ok(())
        });
        asked.unwrap();
        assert_eq!(seen, [1, 2]);
        let sent = thread.join().unwrap();
        assert!(sent.starts_with("POST /system/machine HTTP/1.0\r\n"), "{sent}");
        assert!(
            sent.contains("Basic YWRtaW46aGF5\r\n") && sent.ends_with("{\"command\":\"status\"}"),
            "{sent}"
        );
    }

    #[test]
    fn bad_answers_are_told_apart() {
        for (answer, wanted) in [
            ("HTTP/1.0 401 Unauthorized\r\n\r\nno", "wrong user or password"),
            ("HTTP/1.0 503 Busy\r\n\r\nthe supervisor rests\n", "503 the supervisor rests"),
            ("HTTP/1.0 404 Not Found\r\n\r\n", "not an old one"),
            ("SSH-2.0-x\r\n", "no gateway"),
            ("HTTP/1.0 200 OK\r\n\r\n{\"a\":1}\n", "broke off"),
            ("HTTP/1.0 200 OK\r\n\r\n{\"error\":\"no service x\"}\n", "no service x"),
        ] {
            let (machine, thread) = remote(answer);
            let error = machine.ask(&Request::Status {}, &mut |_| Ok(())).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
            thread.join().unwrap();
        }
    }
}
