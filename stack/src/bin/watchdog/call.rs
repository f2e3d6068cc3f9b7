//! One call, from its head to the end of its answer: counted while it runs, measured and logged when it is over.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};

use crate::body::{Body, Problem};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::mode::Mode;
use crate::output::say;
use crate::running::Place;
use crate::seconds::Seconds;

/// How long a call took until its answer's head, in seconds.
const DURATION: HeaderName = HeaderName::from_static("x-duration-seconds");

/// The call's identifier, made by the gateway.
const CALL_ID: HeaderName = HeaderName::from_static("x-call-id");

/// What is told about a call whose caller left before the answer: there is no status for it, and this is what others
/// write.
const LEFT: u16 = 499;

/// One call.
pub struct Call {
    start: Instant,
    method: Method,
    status: Option<StatusCode>,
    bytes: u64,
    line: Option<Line>,
    metrics: Rc<Metrics>,
    _place: Option<Rc<Place>>,
}

/// What the log's line needs.
struct Line {
    uri: Uri,
    /// The identifier, where it is wanted.
    id: Option<Option<HeaderValue>>,
}

impl Call {
    /// Begins to measure. A call without a place is one that is refused.
    pub fn begin<B>(
        config: &Config,
        metrics: &Rc<Metrics>,
        request: &Request<B>,
        place: Option<Rc<Place>>,
    ) -> Self {
        let headers = request.headers();
        // The classic watchdog has lines of its own. Probes come all the time, and say nothing.
        let logged = config.log_calls
            && !matches!(config.mode, Mode::Classic(_))
            && !headers.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"kube-probe"));
        let id = config.log_call_id.then(|| headers.get(CALL_ID).cloned());
        Self {
            start: Instant::now(),
            method: request.method().clone(),
            status: None,
            bytes: 0,
            line: logged.then(|| Line { uri: request.uri().clone(), id }),
            metrics: metrics.clone(),
            _place: place,
        }
    }

    /// The answer, which ends the call when it is over.
    pub fn answered(mut self, mut response: Response<Body>) -> Response<Body> {
        self.status = Some(response.status());
        let taken = Seconds(self.start.elapsed());
        if let Ok(value) = HeaderValue::try_from(taken.to_string()) {
            response.headers_mut().insert(DURATION, value);
        }
        response.map(|body| Box::pin(Counted { body, call: self }) as Body)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let taken = self.start.elapsed();
        self.metrics.observe(self.status.map_or(LEFT, |status| status.as_u16()), self.method.as_str(), taken);
        let Some(Line { uri, id }) = &self.line else { return };
        let (method, seconds) = (&self.method, Seconds(taken));
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let id = match id {
            None => String::new(),
            Some(id) => {
                let id = id.as_ref().and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
                format!(" [{:.128}]", id.unwrap_or("none"))
            }
        };
        match self.status {
            Some(status) => say(format_args!(
                "{method} {path:.256} - {status} - ContentLength: {}B ({seconds:.4}s){id}",
                self.bytes
            )),
            None => say(format_args!("{method} {path:.256} - the caller left ({seconds:.4}s){id}")),
        }
    }
}

/// A body that counts its bytes and has its call.
struct Counted {
    body: Body,
    call: Call,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Problem;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Problem>>> {
        let polled = self.body.as_mut().poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.call.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
