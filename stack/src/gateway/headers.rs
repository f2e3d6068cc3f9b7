//! Which headers travel.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::{
    CONNECTION, COOKIE, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Response};

use crate::random;

/// Follows one call through all logs.
pub const CALL_ID: HeaderName = HeaderName::from_static("x-call-id");
/// When the gateway took the call, in nanoseconds since 1970.
pub const START_TIME: HeaderName = HeaderName::from_static("x-start-time");
/// Who answered.
pub const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// This program, as `X-Served-By` has it.
pub const SERVED_BY_VALUE: &str = concat!("bothy/", env!("CARGO_PKG_VERSION"));
const AGENT: &str = concat!("bothy-gateway/", env!("CARGO_PKG_VERSION"));

/// Headers of one connection, which end here (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Identifies a call and tells when it came.
#[derive(Debug, Clone)]
pub struct Stamp {
    call_id: HeaderValue,
    start: HeaderValue,
}

impl Stamp {
    /// Takes the client's identifier, or makes one.
    pub fn new(headers: &HeaderMap) -> Self {
        let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let number = |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        let call_id = headers.get(CALL_ID).filter(|id| !id.is_empty()).cloned();
        Self {
            call_id: call_id.unwrap_or_else(|| number(random::uuid())),
            start: number(nanoseconds.to_string()),
        }
    }

    /// The call's identifier.
    pub fn call_id(&self) -> &HeaderValue {
        &self.call_id
    }

    /// An answer that is marked.
    pub fn marked<B>(&self, mut response: Response<B>) -> Response<B> {
        self.mark(response.headers_mut());
        response
    }

    /// Marks an answer.
    pub fn mark(&self, headers: &mut HeaderMap) {
        headers.insert(CALL_ID, self.call_id.clone());
        headers.insert(START_TIME, self.start.clone());
        headers.insert(SERVED_BY, HeaderValue::from_static(SERVED_BY_VALUE));
    }
}

/// Brings what HTTP/2 says in other places to where HTTP/1.1 has it: the host, and a cookie that came in pieces
/// (RFC 9113, sections 8.3.1 and 8.2.3).
pub fn from_http2(headers: &mut HeaderMap, authority: Option<&Authority>) {
    if let Some(host) = authority.and_then(|host| HeaderValue::try_from(host.as_str()).ok()) {
        headers.entry(HOST).or_insert(host);
    }
    if headers.get_all(COOKIE).iter().nth(1).is_some() {
        let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
            headers.insert(COOKIE, cookie);
        }
    }
}

/// Turns a client's headers into those that the function sees.
pub fn towards_function(headers: &mut HeaderMap, client: SocketAddr, stamp: &Stamp) {
    // Before others go: `Connection: host` does not make it one connection's.
    let host = headers.remove(HOST);
    strip(headers);
    if let Some(host) = host {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
    if let Ok(client) = HeaderValue::try_from(client.to_string()) {
        headers.entry(FORWARDED_FOR).or_insert(client);
    }
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    headers.insert(CALL_ID, stamp.call_id.clone());
    headers.insert(START_TIME, stamp.start.clone());
}

/// Removes what belongs to one connection, what its `Connection` header names included.
pub fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let all = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let named: Vec<HeaderName> =
            all.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
        for name in &named {
            headers.remove(name);
        }
    }
    // Most have none of them.
    let found: Vec<HeaderName> = headers.keys().filter(|name| HOP_BY_HOP.contains(name)).cloned().collect();
    for name in &found {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn hop_by_hop_headers_end_here() {
        let mut headers = map(&[
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("keep-alive", "5"),
            ("x-kept", "1"),
        ]);
        strip(&mut headers);
        assert_eq!(headers, map(&[("x-kept", "1")]));
    }

    #[test]
    fn what_a_function_sees() {
        let client = "192.0.2.1:4711".parse().unwrap();
        let mut headers = map(&[("host", "bothy:8080"), ("authorization", "Basic x")]);
        let stamp = Stamp::new(&headers);
        towards_function(&mut headers, client, &stamp);
        assert_eq!(headers["x-forwarded-host"], "bothy:8080");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1:4711");
        assert_eq!(headers["authorization"], "Basic x");
        assert_eq!(headers["user-agent"], AGENT);
        assert!(!headers.contains_key("host"));
        assert_eq!(headers["x-call-id"].len(), 36);
        assert!(headers["x-start-time"].to_str().unwrap().parse::<u128>().unwrap() > 0);

        let mut headers =
            map(&[("x-forwarded-for", "a"), ("x-forwarded-host", "b"), ("x-call-id", "c"), ("host", "h")]);
        let stamp = Stamp::new(&headers);
        towards_function(&mut headers, client, &stamp);
        for (name, value) in [("x-forwarded-for", "a"), ("x-forwarded-host", "b"), ("x-call-id", "c")] {
            assert_eq!(headers[name], value);
        }
    }

    #[test]
    fn the_host_is_told_whatever_connection_names() {
        let mut headers =
            map(&[("host", "bothy:8080"), ("connection", "host, x-call-id, x-mine"), ("x-mine", "1")]);
        let stamp = Stamp::new(&headers);
        towards_function(&mut headers, "192.0.2.1:4711".parse().unwrap(), &stamp);
        assert_eq!(headers["x-forwarded-host"], "bothy:8080");
        assert!(headers.contains_key("x-call-id") && !headers.contains_key("x-mine"));
    }

    #[test]
    fn what_http2_says_elsewhere() {
        let mut headers = HeaderMap::new();
        for crumb in ["a=1", "b=2; c=3"] {
            headers.append(COOKIE, HeaderValue::from_static(crumb));
        }
        from_http2(&mut headers, Some(&Authority::from_static("bothy:8443")));
        assert_eq!(headers, map(&[("host", "bothy:8443"), ("cookie", "a=1; b=2; c=3")]));
        from_http2(&mut headers, Some(&Authority::from_static("other")));
        assert_eq!(headers["host"], "bothy:8443");
        from_http2(&mut headers, None);
        assert_eq!(headers.len(), 2);
    }
}
