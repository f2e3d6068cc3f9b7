//! A call as it lies in a queue: a head in JSON, and the body as it came.

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use serde::{Deserialize, Serialize};

use super::frame;
use super::policy::Overrides;
use crate::random;

/// Headers that a call may have: a map of them has a size, and panics beyond it.
const MOST_HEADERS: usize = 1000;

/// All but the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// A random number of its own: its identifier need not be one, and its place may have been another's before a power cut.
    pub nonce: u64,
    /// `X-Call-Id`. Not always one of its own: a function that makes calls passes its own on.
    pub id: String,
    /// Method.
    pub method: String,
    /// Path behind the function's name, as it came.
    pub path: String,
    /// Query, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Headers, as the function gets them. Each byte of a value is one character (ISO 8859-1).
    headers: Vec<(String, String)>,
    /// Where the answer goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
    /// What the function's annotations said of retries when the call came.
    #[serde(default, skip_serializing_if = "Overrides::is_empty")]
    pub retry: Overrides,
    /// When it came, milliseconds since 1970.
    pub accepted: u64,
    /// The body's name in the object store, where it is not behind the head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<String>,
    /// Size of the body, bytes.
    pub bytes: u64,
}

/// Who calls what, beside the request.
#[derive(Debug)]
pub struct Origin {
    /// `X-Call-Id`.
    pub id: String,
    /// Path behind the function's name.
    pub path: String,
    /// Where the answer goes.
    pub callback: Option<String>,
    /// The function's own rules.
    pub retry: Overrides,
}

impl Call {
    /// A call of a request whose headers are those for the function already.
    pub fn new(origin: Origin, parts: &Parts) -> Self {
        let Origin { id, path, callback, retry } = origin;
        let text = |value: &HeaderValue| value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
        Self {
            nonce: random::number(),
            id,
            method: parts.method.to_string(),
            path,
            query: parts.uri.query().map(str::to_owned),
            headers: parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            callback,
            retry,
            accepted: super::now(),
            stored: None,
            bytes: 0,
        }
    }

    /// The headers; what is none is left out.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        // More than that were never accepted.
        for (name, value) in self.headers.iter().take(MOST_HEADERS) {
            let bytes: Option<Vec<u8>> = value.chars().map(|c| u8::try_from(c).ok()).collect();
            let value = bytes.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok());
            if let (Ok(name), Some(value)) = (HeaderName::from_bytes(name.as_bytes()), value) {
                headers.append(name, value);
            }
        }
        headers
    }
}

/// A message of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// All but the body.
    pub call: Call,
    /// The body, where it is not stored elsewhere.
    pub body: Bytes,
}

impl Payload {
    /// As a message.
    pub fn encode(&self) -> Bytes {
        frame::encode(&self.call, &self.body)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// What it is not, in one line.
    pub fn decode(message: &Bytes) -> Result<Self, String> {
        frame::decode(message).map(|(call, body)| Self { call, body })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use hyper::Request;
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn call(id: &str) -> Call {
        let mut request = Request::builder().method("PUT").uri("/async-function/f/a%2Fb?x=1");
        request = request.header("x-one", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        let (parts, ()) = request.header("x-two", "1").header("x-two", "2").body(()).unwrap().into_parts();
        let path = "/a%2Fb".to_owned();
        Call::new(Origin { id: id.into(), path, callback: None, retry: Overrides::default() }, &parts)
    }

    #[test]
    fn there_and_back() {
        let payload = Payload { call: call("ä"), body: Bytes::from_static(b"\0\xff body") };
        let read = Payload::decode(&payload.encode()).unwrap();
        assert_eq!(read, payload);
        let headers = read.call.headers();
        assert_eq!(headers["x-one"].as_bytes(), b"caf\xe9");
        assert_eq!(headers.get_all("x-two").iter().count(), 2);
        assert_eq!((read.call.method.as_str(), read.call.query.as_deref()), ("PUT", Some("x=1")));
    }

    #[test]
    fn what_is_no_call() {
        for (bytes, wanted) in [
            (&b""[..], "shorter than four bytes"),
            (b"\0\0\0\x09{}", "cut off"),
            (b"\0\0\0\x02{}", "its head: missing field"),
            (b"\xff\xff\xff\xff{}", "cut off"),
        ] {
            let error = Payload::decode(&Bytes::from_static(bytes)).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Payload::decode(&Bytes::from(bytes));
        }
    }
}
