//! Which headers reach a function. An input is headers, one a line.

use hyper::HeaderMap;
use hyper::header::{CONNECTION, COOKIE, HOST, HeaderName};
use hyper::http::uri::Authority;

use crate::gateway::headers::{Stamp, from_http2, strip, towards_function};

/// Those of one connection (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Those that a function always gets.
const ALWAYS: [&str; 5] = ["user-agent", "x-call-id", "x-forwarded-for", "x-forwarded-host", "x-start-time"];

pub fn check(data: &[u8]) {
    let headers = super::headers(data);
    let named = named(&headers);
    let ends_here = |name: &HeaderName| {
        HOP_BY_HOP.contains(&name.as_str()) || named.iter().any(|one| name == one.as_str())
    };
    // Each is there with all of its values, or not at all.
    let mut stripped = headers.clone();
    strip(&mut stripped);
    for name in headers.keys() {
        let kept = stripped.get_all(name).iter();
        assert!(kept.eq(headers.get_all(name).iter().filter(|_| !ends_here(name))), "{name}");
    }
    assert!(stripped.keys().all(|name| headers.contains_key(name)));

    let mut towards = headers.clone();
    from_http2(&mut towards, Some(&Authority::from_static("bothy:8443")));
    assert!(towards.contains_key(HOST) && towards.get_all(COOKIE).iter().count() <= 1);
    towards_function(&mut towards, ([192, 0, 2, 1], 4711).into(), &Stamp::new(&headers));
    assert!(!towards.contains_key(HOST) && !HOP_BY_HOP.iter().any(|name| towards.contains_key(*name)));
    assert!(towards.keys().all(|name| !ends_here(name) || ALWAYS.contains(&name.as_str())));
    assert!(ALWAYS.iter().all(|name| towards.contains_key(*name)), "{towards:?}");
    for one in ["x-call-id", "x-start-time"] {
        assert_eq!(towards.get_all(one).iter().count(), 1, "{one}");
    }
}

/// What `Connection` names.
fn named(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}
