//! Answers that the gateway gives itself.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// Why a body broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body of either side.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Marks answers that come from the platform and not from the function.
pub const INTERNAL: HeaderName = HeaderName::from_static("x-openfaas-internal");

/// A status and a text; an empty text has no content type.
pub fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let text = text.into();
    let typed = !text.is_empty();
    let mut response = Response::new(body(text));
    *response.status_mut() = status;
    if typed {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    response
}

/// A request that is not done, and why.
#[derive(Debug)]
pub struct Refusal {
    /// The answer's status.
    pub status: StatusCode,
    /// Its text.
    pub text: String,
}

/// Makes a refusal.
pub fn refuse(status: StatusCode, text: impl Into<String>) -> Refusal {
    Refusal { status, text: text.into() }
}

impl From<Refusal> for Response<Body> {
    fn from(refusal: Refusal) -> Self {
        text(refusal.status, refusal.text)
    }
}

/// A status alone.
pub fn empty(status: StatusCode) -> Response<Body> {
    text(status, "")
}

/// 200 with a document.
pub fn json(document: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(document) {
        Ok(bytes) => {
            let mut response = Response::new(body(bytes));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// 200 with a page, which loads nothing and is shown in nobody else's.
pub fn html(page: String) -> Response<Body> {
    let mut response = Response::new(body(page));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, policy),
        (CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Elsewhere.
pub fn redirect(status: StatusCode, location: &str) -> Response<Body> {
    let mut response = empty(status);
    // A path that came in as a URI is a header value.
    if let Ok(value) = location.parse() {
        response.headers_mut().insert(LOCATION, value);
    }
    response
}

/// 401, with what to do about it.
pub fn unauthorized(realm: &str) -> Response<Body> {
    let mut response = text(StatusCode::UNAUTHORIZED, "invalid credentials");
    if let Ok(asked) = HeaderValue::try_from(format!("Basic realm=\"{realm}\"")) {
        response.headers_mut().insert(WWW_AUTHENTICATE, asked);
    }
    response
}

/// An answer about a function that could not give one itself.
pub fn proxy_error(status: StatusCode, message: impl Into<String>) -> Response<Body> {
    let mut response = text(status, message);
    response.headers_mut().insert(INTERNAL, HeaderValue::from_static("proxy"));
    response
}

/// The same for what passes: 503, and when it may be tried again.
pub fn busy(message: impl Into<String>, seconds: u64) -> Response<Body> {
    let mut response = proxy_error(StatusCode::SERVICE_UNAVAILABLE, message);
    response.headers_mut().insert(RETRY_AFTER, seconds.into());
    response
}

fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}
