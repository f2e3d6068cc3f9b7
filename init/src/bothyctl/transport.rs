//! The way to a machine: its control socket, or its gateway over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::account::{self, Account};
use super::http::{self, Gateway, Host};
use crate::error::{Error, Result};
use crate::request::{Request, SOCKET};

/// Most of a text that is no answer of ours.
const LARGEST_REFUSAL_BYTES: u64 = 16 << 10;
/// Where the gateway takes requests.
const PATH: &str = "/system/machine";

/// A machine.
pub(super) enum Machine {
    /// This one.
    Local,
    /// One behind its gateway.
    Remote(Host, Account),
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
            Self::Remote(..) => answers(post(&self.gateway()?, &request.line())?, each),
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

    /// Its gateway, for what is asked of that alone.
    pub(super) fn gateway(&self) -> Result<Gateway> {
        Ok(match self {
            Self::Local => {
                Gateway { host: Host::own(), account: account::published(Path::new(account::PUBLISHED))? }
            }
            Self::Remote(host, account) => Gateway { host: host.clone(), account: account.clone() },
        })
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

/// Sends a request to a gateway; gives the body of the answer: our own last line tells whether it is whole.
fn post(gateway: &Gateway, line: &str) -> Result<BufReader<TcpStream>> {
    let (status, reader) = gateway.begin("POST", PATH, Some(line))?;
    if status == Some(200) {
        // From here on silence means that there is nothing new.
        let silent = reader.get_ref().set_read_timeout(None);
        silent.map_err(|error| gateway.failed(format!("it does not answer: {error}")))?;
        return Ok(reader);
    }
    let mut text = String::new();
    let _ = reader.take(LARGEST_REFUSAL_BYTES).read_to_string(&mut text);
    Err(match status {
        Some(404) => gateway.failed(
            "it has no such thing as /system/machine; is it a Bothy machine, and not an old one?".to_owned(),
        ),
        Some(status) => gateway.refused(status, &text),
        None => gateway.failed(http::NO_GATEWAY.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

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
