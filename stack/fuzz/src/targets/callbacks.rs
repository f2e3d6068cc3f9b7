//! Where callers want answers to be sent. An input is the value of `X-Callback-Url`.

use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Uri, http::uri::Authority};

use crate::gateway::callback::callback;
use crate::gateway::target::target;

pub fn check(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let headers = HeaderMap::from_iter([("x-callback-url".parse().unwrap(), value)]);
    let url = match callback(&headers) {
        Ok(url) => url.unwrap(),
        Err(wrong) => return assert!(wrong.starts_with("X-Callback-Url: ") && !wrong.contains('\n')),
    };
    assert_eq!(url.as_bytes(), data.trim_ascii());
    let (scheme, rest) = url.split_once("://").unwrap();
    assert!(["http", "https"].iter().any(|one| scheme.eq_ignore_ascii_case(one)), "{url}");
    let authority = rest.split(['/', '?', '#']).next().unwrap();
    let host = authority.rsplit('@').next().unwrap();
    assert!(!host.is_empty() && !host.starts_with(':') && !url.contains(char::is_whitespace), "{url}");
    // What the worker does with it has to work.
    let uri: Uri = url.parse().unwrap();
    let known = uri.authority().map(Authority::as_str);
    assert_eq!(known, Some(authority));
    assert!(HeaderValue::try_from(host).is_ok());
    let target = target(uri.path(), uri.query()).unwrap();
    assert!(target.to_string().starts_with('/') && target.authority().is_none(), "{target}");
}
