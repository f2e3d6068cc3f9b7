//! HTTP to a machine's forwarded port: plain, small, with limits on time.

use std::time::Duration;

use super::{Error, Result};

/// An answer of any status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// When the machine says that it answered, as HTTP writes it; empty where it does not.
    pub date: String,
    /// `X-Call-Id`; empty where there is none.
    pub call_id: String,
    /// The body as text.
    pub body: String,
}

impl Answer {
    /// Whether it says that something is done: 200, and nothing else.
    ///
    /// # Errors
    /// It refuses `what`.
    pub(crate) fn done(self, what: String) -> Result<()> {
        if self.status == 200 { Ok(()) } else { Err(self.refused(what)) }
    }

    /// As the error that it is.
    pub(crate) fn refused(self, what: String) -> Error {
        Error::Refused { what, status: self.status, body: self.body.trim().to_owned() }
    }
}

/// Talks to one machine.
#[derive(Clone)]
pub struct Client {
    base: String,
    authorization: Option<String>,
    agent: ureq::Agent,
}

impl Client {
    /// Requests to `http://127.0.0.1:PORT`.
    pub fn new(port: u16) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // A machine that reboots leaves dead connections behind.
            .max_idle_connections(0)
            .proxy(None)
            .build();
        Self { base: format!("http://127.0.0.1:{port}"), authorization: None, agent: agent.new_agent() }
    }

    /// The same with a user's name and password (RFC 7617) in every request.
    pub fn with_credentials(&self, user: &str, password: &str) -> Self {
        let basic = format!("Basic {}", base64(format!("{user}:{password}").as_bytes()));
        Self { authorization: Some(basic), ..self.clone() }
    }

    /// The machine's address as seen from this host.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// There was no answer within `limit`. A status other than 200 is an answer.
    pub fn get(&self, path: &str, limit: Duration) -> Result<Answer> {
        self.request("GET", path, None, limit)
    }

    /// Sends a body.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post(&self, path: &str, body: &str, limit: Duration) -> Result<Answer> {
        self.request("POST", path, Some(body), limit)
    }

    /// Any method.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn request(&self, method: &str, path: &str, body: Option<&str>, limit: Duration) -> Result<Answer> {
        let url = format!("{}{path}", self.base);
        let failed = |reason: String| Error::Http { method: method.to_owned(), url: url.clone(), reason };
        let mut request = ureq::http::Request::builder().method(method).uri(&url);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        if body.is_some_and(|body| body.starts_with('{')) {
            request = request.header("Content-Type", "application/json");
        }
        let request = request.body(body.unwrap_or_default()).map_err(|e| failed(e.to_string()))?;
        let request = self.agent.configure_request(request).timeout_global(Some(limit)).build();
        let mut response = self.agent.run(request).map_err(|e| failed(e.to_string()))?;
        let status = response.status().as_u16();
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (date, call_id) = (header("date"), header("x-call-id"));
        let body = response.body_mut().read_to_string().map_err(|e| failed(e.to_string()))?;
        Ok(Answer { status, date, call_id, body })
    }
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let index = (word >> (18 - 6 * place) & 63) as usize;
            text.push(if place <= group.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn base64_of_rfc_4648() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    fn server(answer: &'static str) -> (u16, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            let mut piece = [0; 1024];
            while !bytes.ends_with(b"figlet") {
                let n = stream.read(&mut piece).unwrap();
                bytes.extend(&piece[..n]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(bytes).unwrap()
        });
        (port, thread)
    }

    #[test]
    fn sends_credentials_and_takes_any_status() {
        let (port, server) = server(
            "HTTP/1.1 503 Busy\r\nX-Call-Id: 7\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        );
        let client = Client::new(port).with_credentials("admin", "secret");
        let answer = client.post("/x", "figlet", Duration::from_secs(10)).unwrap();
        let (date, call_id) = (String::new(), "7".to_owned());
        assert_eq!(answer, Answer { status: 503, date, call_id, body: "abc".to_owned() });
        let request = server.join().unwrap().to_ascii_lowercase();
        assert!(request.starts_with("post /x http/1.1\r\n"), "{request}");
        assert!(request.contains("authorization: basic ywrtaw46c2vjcmv0\r\n"), "{request}");
    }

    #[test]
    fn a_machine_that_says_nothing_is_an_error_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let began = std::time::Instant::now();
        assert!(Client::new(port).get("/", Duration::from_millis(200)).is_err());
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
