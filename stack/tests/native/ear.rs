//! A function whose program is the test itself: it does what the path says, and remembers all that it was asked.
//!
//! `/status/503` is answered so; `/slow/200` after so many milliseconds; `/flaky/2` is answered with 503 the first two times
//! that a call of that identifier comes; `/busy/3` with 429 while it has three others; everything else with its own body.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::PATIENCE;
use crate::lab::Lab;
use crate::stand_in::{BARE, inside};

/// What came.
#[derive(Debug, Clone)]
pub struct Heard {
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Heard {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// The function.
#[derive(Clone, Default)]
pub struct Ear(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    heard: Vec<Heard>,
    running: usize,
    most: usize,
}

impl Ear {
    /// Deploys it under a name, with these annotations; it ends with the test. `bare_image` must have been called before the
    /// gateway started.
    pub async fn deploy(lab: &Lab, name: &str, annotations: &Value) -> Self {
        let body = json!({"service": name, "image": BARE, "annotations": annotations}).to_string();
        let netns = lab.folder.join(format!("netns/openfaas-fn.{name}.0"));
        let ear = Self::default();
        let begin = async {
            let listener = inside(&netns, "0.0.0.0:8080").await;
            let ear = ear.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let ear = ear.clone();
                    let service = service_fn(move |request| ear.clone().answer(request));
                    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                }
            });
        };
        let ((), _) = tokio::join!(begin, lab.expect(200, hyper::Method::POST, "/system/functions", &body));
        ear
    }

    /// All that came so far, whose target begins so.
    pub fn heard(&self, prefix: &str) -> Vec<Heard> {
        let state = self.0.lock().unwrap();
        state.heard.iter().filter(|heard| heard.target.starts_with(prefix)).cloned().collect()
    }

    /// How many calls it had at a time at most.
    pub fn most(&self) -> usize {
        self.0.lock().unwrap().most
    }

    /// Waits until so many have come.
    pub async fn until(&self, prefix: &str, wanted: usize) -> Vec<Heard> {
        let end = Instant::now() + PATIENCE * 2;
        loop {
            let heard = self.heard(prefix);
            if heard.len() >= wanted {
                return heard;
            }
            assert!(Instant::now() < end, "{} of {wanted} calls of {prefix} came", heard.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let heard = Heard {
            method: parts.method.to_string(),
            target: parts.uri.to_string(),
            headers: parts.headers,
            body: body.clone(),
        };
        let id = heard.header("x-call-id").to_owned();
        let (others, before) = {
            let mut state = self.0.lock().unwrap();
            let same = |known: &&Heard| known.header("x-call-id") == id && known.target == heard.target;
            let before = state.heard.iter().filter(same).count();
            state.heard.push(heard);
            let others = state.running;
            state.running += 1;
            state.most = state.most.max(state.running);
            (others, before)
        };
        let path = parts.uri.path().to_owned();
        let (act, number) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        let number: u64 = number.parse().unwrap_or(0);
        let status = match act {
            "status" => u16::try_from(number).unwrap(),
            "slow" => {
                tokio::time::sleep(Duration::from_millis(number)).await;
                200
            }
            "flaky" if (before as u64) < number => 503,
            "busy" if others as u64 >= number => 429,
            "busy" => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                200
            }
            _ => 200,
        };
        self.0.lock().unwrap().running -= 1;
        Ok(Response::builder().status(status).header("x-own", "said").body(Full::new(body)).unwrap())
    }
}

/// How often each call came, by its identifier.
pub fn counts(heard: &[Heard]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for heard in heard {
        *counts.entry(heard.header("x-call-id").to_owned()).or_default() += 1;
    }
    counts
}
