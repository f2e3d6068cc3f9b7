//! Bodies of the watchdog's answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

/// Why a body broke off.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;

/// A body of an answer. It lives in one thread.
pub type Body = Pin<Box<dyn HttpBody<Data = Bytes, Error = Problem>>>;

/// Tells that the answer comes from the watchdog and not from the function.
pub const INTERNAL: HeaderName = HeaderName::from_static("x-openfaas-internal");

/// A short text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(text.into()).map_err(|never: Infallible| -> Problem { match never {} });
    let mut response = Response::new(Box::pin(body) as Body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// The same, marked as the watchdog's own.
pub fn internal(status: StatusCode, message: impl Into<Bytes>, who: &'static str) -> Response<Body> {
    let mut response = text(status, message);
    response.headers_mut().insert(INTERNAL, HeaderValue::from_static(who));
    response
}

/// A body that keeps something until it is over: a call's place, a process.
pub struct Held<T> {
    inner: Body,
    _kept: Rc<T>,
}

impl<T: 'static> Held<T> {
    /// Wraps a body.
    pub fn wrap(inner: Body, kept: Rc<T>) -> Body {
        Box::pin(Self { inner, _kept: kept })
    }
}

impl<T> HttpBody for Held<T> {
    type Data = Bytes;
    type Error = Problem;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Problem>>> {
        self.inner.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
