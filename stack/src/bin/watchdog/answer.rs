//! What the watchdog answers: its own paths, and calls.

use std::rc::Rc;
use std::time::Duration;

use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use tokio::time::Instant;

use crate::body::{Body, empty, full_house, text};
use crate::call::Call;
use crate::config::Config;
use crate::duration;
use crate::function::Function;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::running::{Place, Running};

/// A caller's own limit.
const TIMEOUT: HeaderName = HeaderName::from_static("x-timeout");

/// Prometheus's text format.
const TEXT_FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Everything a request may need.
pub struct Watchdog {
    /// How it was configured.
    pub config: Config,
    /// Whether calls are taken.
    pub health: Health,
    /// What was counted.
    pub metrics: Rc<Metrics>,
    /// Calls that run.
    pub running: Rc<Running>,
    /// Who answers them.
    pub function: Function,
}

impl Watchdog {
    /// The answer to a request, on a connection with so many calls.
    pub async fn answer(&self, request: Request<Body>, here: &Rc<Running>) -> Response<Body> {
        match request.uri().path() {
            "/_/health" => told(request.method(), self.health.is_well()),
            "/_/ready" => self.ready(request, here).await,
            _ => self.call(request, here).await,
        }
    }

    /// The answer to a request for metrics.
    pub fn counts(&self, request: &Request<Body>) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") => {
                let mut counts = text(StatusCode::OK, self.metrics.render(self.running.count()));
                counts.headers_mut().insert(CONTENT_TYPE, TEXT_FORMAT);
                counts
            }
            (_, "/metrics") => text(StatusCode::METHOD_NOT_ALLOWED, ""),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    /// Ready is more than well: there is room for a call, and the function is there.
    async fn ready(&self, request: Request<Body>, here: &Rc<Running>) -> Response<Body> {
        let (method, well) = (request.method(), self.health.is_well());
        if method != Method::GET || !well {
            return told(method, well);
        }
        if let Some(limit) = self.full() {
            return full_house(limit);
        }
        let there = self.function.is_there().await;
        let Some(path) = self.config.ready_path.as_ref().filter(|_| there) else {
            return told(&Method::GET, there);
        };
        let limit = self.limit(&request);
        let (mut parts, _) = request.into_parts();
        parts.uri = Uri::from(path.clone());
        // Its body stays here.
        parts.headers.remove(CONTENT_LENGTH);
        // A question, not a call: it is not counted.
        let place = Place::take(&Rc::default(), here);
        self.function.answer(&self.config, Request::from_parts(parts, empty()), limit, place).await
    }

    /// The number of calls that may run, when so many do.
    fn full(&self) -> Option<usize> {
        self.config.max_inflight.filter(|limit| self.running.count() >= *limit)
    }

    async fn call(&self, request: Request<Body>, here: &Rc<Running>) -> Response<Body> {
        if let Some(limit) = self.full() {
            return Call::begin(&self.config, &self.metrics, &request, None).answered(full_house(limit));
        }
        let place = Place::take(&self.running, here);
        let call = Call::begin(&self.config, &self.metrics, &request, Some(place.clone()));
        let deadline = self.limit(&request);
        call.answered(self.function.answer(&self.config, request, deadline, place).await)
    }

    /// When the call's time is over: the caller's limit counts where it is shorter than ours.
    fn limit<B>(&self, request: &Request<B>) -> Option<Instant> {
        let asked = request.headers().get(TIMEOUT).and_then(|value| duration::parse(value.to_str().ok()?));
        let asked = asked.filter(|limit| !limit.is_zero());
        let limit: Option<Duration> = asked.into_iter().chain(self.config.exec_timeout).min();
        limit.map(|limit| Instant::now() + limit)
    }
}

fn told(method: &Method, well: bool) -> Response<Body> {
    match (method, well) {
        (&Method::GET, true) => text(StatusCode::OK, "OK"),
        (&Method::GET, false) => text(StatusCode::SERVICE_UNAVAILABLE, ""),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, ""),
    }
}
