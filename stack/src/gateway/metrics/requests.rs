//! Requests to the API below `/system` and asynchronous calls, counted. Paths and methods come from tables: a client cannot make up series.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use hyper::{Method, StatusCode};

use super::text::{Kind, Text};
use crate::histogram::Histogram;

/// What is above all of them, but of asynchronous calls.
const ABOVE: &str = "/system/";
const CALLS: &str = "/async-function/";

/// The paths, without the names that may follow.
const PATHS: [&str; 15] = [
    "/async-function",
    "/system/functions",
    "/system/function",
    "/system/scale-function",
    "/system/namespaces",
    "/system/namespace",
    "/system/secrets",
    "/system/logs",
    "/system/info",
    "/system/alert",
    "/system/machine",
    "/system/calls",
    "/system/dead-letters",
    "/system/telemetry",
    "/system/other",
];

/// The last of them stands for all that nobody knows.
const OTHER: &str = "/system/other";

/// A request that is being answered.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    method: &'static str,
    path: &'static str,
    begun: Instant,
}

impl Request {
    /// Nothing where the request is none of the API's.
    pub fn begin(method: &Method, path: &str) -> Option<Self> {
        if !path.starts_with(ABOVE) && !path.starts_with(CALLS) {
            return None;
        }
        let begins = |known: &&str| {
            path.strip_prefix(*known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let path = PATHS.into_iter().find(begins).unwrap_or(OTHER);
        let method = match *method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            Method::OPTIONS => "OPTIONS",
            _ => "other",
        };
        Some(Self { method, path, begun: Instant::now() })
    }
}

/// Times of answers, by method, path and status.
#[derive(Debug, Default)]
pub struct Requests(Mutex<BTreeMap<(&'static str, &'static str, u16), Histogram>>);

impl Requests {
    /// A request has its answer; the body may still be on its way.
    pub fn end(&self, request: Option<Request>, status: StatusCode) {
        let Some(Request { method, path, begun }) = request else { return };
        let taken = begun.elapsed();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry((path, method, status.as_u16())).or_default().observe(taken);
    }

    /// Writes them.
    pub fn write(&self, text: &mut Text) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        text.family(Kind::Counter, "http_requests_total", "Requests to the API, by their answer's status.");
        for ((path, method, status), histogram) in &all {
            text.sample(&[("method", method), ("path", path), ("status", status)], histogram.count);
        }
        text.family(
            Kind::Histogram,
            "http_request_duration_seconds",
            "Time of requests to the API from their head to the answer's head.",
        );
        for ((path, method, status), histogram) in &all {
            text.histogram(&[("method", method), ("path", path), ("status", status)], histogram);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_makes_up_no_series() {
        let requests = Requests::default();
        let brew = Method::from_bytes(b"BREW").unwrap();
        for (method, path) in [
            (Method::GET, "/system/functions"),
            (Method::GET, "/system/function/a"),
            (Method::GET, "/system/function/b"),
            (Method::POST, "/system/functionsx"),
            (Method::POST, "/system/x/y"),
            (brew, "/system/namespace/"),
            (Method::GET, "/function/system"),
            (Method::GET, "/systemx/functions"),
        ] {
            requests.end(Request::begin(&method, path), StatusCode::OK);
        }
        let mut text = Text::default();
        requests.write(&mut text);
        let text = text.finish();
        let counts: Vec<_> = text.lines().filter(|line| line.starts_with("http_requests_total{")).collect();
        assert_eq!(
            counts,
            [
                r#"http_requests_total{method="GET",path="/system/function",status="200"} 2"#,
                r#"http_requests_total{method="GET",path="/system/functions",status="200"} 1"#,
                r#"http_requests_total{method="other",path="/system/namespace",status="200"} 1"#,
                r#"http_requests_total{method="POST",path="/system/other",status="200"} 2"#,
            ]
        );
        assert!(text.contains(
            "http_request_duration_seconds_count{method=\"GET\",path=\"/system/function\",status=\"200\"} 2\n"
        ));
    }
}
