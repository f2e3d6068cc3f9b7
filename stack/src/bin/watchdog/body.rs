//! Bodies of requests and answers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

/// Why a body broke off.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;

/// A body. It lives in one thread.
pub type Body = Pin<Box<dyn HttpBody<Data = Bytes, Error = Problem>>>;

/// Tells that the answer comes from the watchdog and not from the function.
const INTERNAL: HeaderName = HeaderName::from_static("x-openfaas-internal");

/// Who the watchdog says it is.
const WHO: HeaderValue = HeaderValue::from_static("of-watchdog");

/// A body without bytes.
pub fn empty() -> Body {
    Box::pin(Empty::new().map_err(|never: Infallible| -> Problem { match never {} }))
}

/// A body of bytes that are there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Box::pin(Full::new(bytes.into()).map_err(|never: Infallible| -> Problem { match never {} }))
}

/// A short text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// The same, marked as the watchdog's own.
pub fn internal(status: StatusCode, message: impl Into<Bytes>) -> Response<Body> {
    let mut response = text(status, message);
    response.headers_mut().insert(INTERNAL, WHO);
    response
}

/// The answer to a call that is one too many: all of it is contract, who says it too, but that it may come again in a second.
pub fn full_house(limit: usize) -> Response<Body> {
    let message = format!("Concurrent request limit exceeded. Max concurrent requests: {limit}\n");
    let mut response = text(StatusCode::TOO_MANY_REQUESTS, message);
    response.headers_mut().insert(INTERNAL, HeaderValue::from_static("faas-middleware"));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A body that is wholly in memory, in the pieces in which it came: nothing is copied together.
#[derive(Default)]
pub struct Collected {
    pieces: VecDeque<Bytes>,
    length: u64,
}

impl Collected {
    /// Reads a body to its end.
    pub async fn read(mut body: Body) -> Result<Self, Problem> {
        let mut collected = Self::default();
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame?.into_data()
                && !piece.is_empty()
            {
                collected.length += piece.len() as u64;
                collected.pieces.push_back(piece);
            }
        }
        Ok(collected)
    }
}

impl HttpBody for Collected {
    type Data = Bytes;
    type Error = Problem;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Problem>>> {
        let piece = self.pieces.pop_front();
        self.length -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn collected() {
        let first = Collected::read(full("some words")).await.unwrap();
        assert_eq!(first.size_hint().exact(), Some(10));
        let again = Collected::read(Box::pin(first)).await.unwrap();
        assert_eq!(again.pieces, [Bytes::from("some words")]);
        let none = Collected::read(empty()).await.unwrap();
        assert!(none.is_end_stream());
        assert_eq!(none.size_hint().exact(), Some(0));
    }
}
