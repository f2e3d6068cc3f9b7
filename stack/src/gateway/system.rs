//! The API below `/system`, and `/healthz`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Buf;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use provisioning::Namespace;
use serde::de::DeserializeOwned;

use super::Gateway;
use super::check::check;
use super::claims::{Going, Who};
use super::query::Query;
use super::reply::{Body, Refusal, empty, json, refuse, text};
use super::wire::{self, Deletion, Deployment, Info, Scaling, Status};
use crate::desired::{Document, on_disk};
use crate::error::Error;
use crate::key::Key;
use crate::queue;
use crate::reconcile::{Function, LARGEST_SECRETS_BYTES, Refused};

/// Largest document that the API takes: annotations may be long, and somebody with the password is not the enemy.
const LARGEST_BODY: usize = 16 << 20;

/// Names in one message.
const NAMED: usize = 8;

/// How long a document may take to come.
const BODY_PATIENCE: Duration = Duration::from_secs(60);

/// How long containerd may take to tell that it is well.
const HEALTH: Duration = Duration::from_secs(3);

/// An answer, or the refusal that takes its place.
pub(super) type Answer = Result<Response<Body>, Refusal>;

impl Gateway {
    /// 200 when functions can be managed, 502 when containerd does not answer.
    pub async fn health(&self) -> Response<Body> {
        match self.world.containerd.check(HEALTH).await {
            Ok(()) => empty(StatusCode::OK),
            Err(error) => text(StatusCode::BAD_GATEWAY, error.to_string()),
        }
    }

    /// Who we are.
    pub fn info(&self) -> Response<Body> {
        json(&Info::new(self.provider))
    }

    /// All functions of a namespace, by name.
    pub async fn list(&self, query: Option<&str>) -> Answer {
        let wanted = named(&parameter(query, "namespace")).ok_or_else(namespace_not_valid)?;
        let mut found: Vec<_> =
            self.functions.all().into_iter().filter(|f| f.key.namespace == wanted).collect();
        // Somebody who mistypes a namespace should not take it for an empty one.
        if found.is_empty() {
            self.must_be_open(&wanted).await?;
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(json(&found.iter().filter_map(|function| status(function)).collect::<Vec<_>>()))
    }

    /// One function; with `usage=1` also what it uses, which takes a moment.
    pub async fn describe(&self, name: &str, query: Option<&str>) -> Answer {
        let namespace = parameter(query, "namespace");
        let key = if namespace.is_empty() { Key::from_path(name) } else { Key::new(name, &namespace) };
        if key.is_none() && named(&namespace).is_none() {
            return Err(namespace_not_valid());
        }
        let found = key.as_ref().and_then(|key| self.functions.get(key));
        let Some(function) = found else {
            // Whoever mistypes a namespace should not take the function for one that is not there.
            if let Some(key) = key {
                self.must_be_open(&key.namespace).await?;
            }
            return Ok(empty(StatusCode::NOT_FOUND));
        };
        let usage = match parameter(query, "usage").as_str() {
            "1" | "true" => self.world.present(&function.key).await,
            _ => None,
        };
        let status = status(&function).map(|status| status.with_exit(function.counts.exits.last()));
        Ok(status.map_or_else(|| empty(StatusCode::NOT_FOUND), |status| json(&status.with_usage(usage))))
    }

    /// Deploys a function: POST a new one, PUT (`replace`) a new version.
    pub async fn deploy(&self, request: Request<Incoming>, replace: bool) -> Answer {
        let deployment: Deployment = body(request).await?;
        let (service, namespace) = (deployment.service.clone(), deployment.namespace.clone());
        let key = self.key(&service, &namespace)?;
        if replace && !self.exists(&key) {
            return Err(refuse(StatusCode::NOT_FOUND, format!("function: {key} not found")));
        }
        let document = deployment.document(&key);
        // Before they are looked at, and until the document is kept: nobody may remove them meanwhile.
        let who = Who::Function(key.to_string());
        let held = self.claims.count_on(&key.namespace, &document.secrets, who);
        let held = held.map_err(|going| gone(&key.namespace, going))?;
        self.must_be_open(&key.namespace).await?;
        check(&document).map_err(bad_request)?;
        queue::check(&document.annotations).map_err(bad_request)?;
        self.check_secrets(&key.namespace, &document).await?;
        let image = document.image.clone();
        // It goes on when the client does not wait for it, and so does what it counts on.
        let (functions, of) = (self.functions.clone(), key.clone());
        let deployed = self.world.spawn(async move {
            let outcome = functions.deploy(&of, document, replace).await;
            drop(held);
            outcome
        });
        match unwound(deployed.await) {
            Ok(()) => Ok(empty(StatusCode::OK)),
            Err(Refused::Exists) => Err(refuse(
                StatusCode::BAD_REQUEST,
                format!(
                    "unable to create container: {}, error: {key} exists already; update it with PUT",
                    key.name
                ),
            )),
            Err(Refused::Absent) => Err(refuse(StatusCode::NOT_FOUND, format!("function: {key} not found"))),
            Err(Refused::Failed(error)) => Err(deployment_failed(&key, &image, &error, replace)),
        }
    }

    /// Deletes a function.
    pub async fn delete(&self, request: Request<Incoming>) -> Answer {
        let query = request.uri().query().map(str::to_owned);
        let deletion: Deletion = body(request).await?;
        let namespace = or_query(deletion.namespace, query.as_deref());
        let key = self.key(&deletion.function_name, &namespace)?;
        let absent = || refuse(StatusCode::NOT_FOUND, format!("function {key} not found"));
        if !self.exists(&key) {
            return Err(absent());
        }
        match self.functions.delete(&key).await {
            Ok(()) => Ok(empty(StatusCode::OK)),
            Err(Refused::Failed(error)) => Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
            Err(Refused::Absent | Refused::Exists) => Err(absent()),
        }
    }

    /// Sets how many instances of a function run, within what its labels allow.
    pub async fn scale(&self, request: Request<Incoming>, name: &str) -> Answer {
        let query = request.uri().query().map(str::to_owned);
        let bytes = read(request).await.map_err(|_| bad_request("Error reading request body"))?;
        let scaling: Scaling =
            wire::parse(bytes.reader()).map_err(|_| bad_request("Error unmarshalling request body"))?;
        let namespace = or_query(scaling.namespace, query.as_deref());
        let name = if scaling.service_name.is_empty() { name } else { &scaling.service_name };
        let key = if namespace.is_empty() { Key::from_path(name) } else { Key::new(name, &namespace) };
        let full = key.as_ref().map_or_else(|| name.to_owned(), ToString::to_string);
        let absent = || refuse(StatusCode::NOT_FOUND, format!("function: {full} not found"));
        let key = key.filter(|key| self.exists(key)).ok_or_else(absent)?;
        match self.functions.scale(&key, scaling.replicas).await {
            Ok(()) => Ok(empty(StatusCode::OK)),
            Err(Refused::Failed(error)) => Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
            Err(Refused::Absent | Refused::Exists) => Err(absent()),
        }
    }

    fn exists(&self, key: &Key) -> bool {
        self.functions.get(key).is_some_and(|function| function.document().is_some())
    }

    fn key(&self, name: &str, namespace: &str) -> Result<Key, Refusal> {
        if named(namespace).is_none() {
            return Err(namespace_not_valid());
        }
        Key::new(name, namespace).ok_or_else(|| {
            bad_request(format!(
                "service: {name:?} is no function name, expected small letters, digits and single hyphens between \
                 them, at most 63"
            ))
        })
    }

    /// The secrets of a deployment: all there, and not more than an instance's copies of them may take.
    async fn check_secrets(&self, namespace: &Namespace, document: &Document) -> Result<(), Refusal> {
        let (secrets, document) = (self.world.secrets.clone(), document.clone());
        let failed = |error: Error| {
            refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("unable to read secrets: {error}"))
        };
        let look = move || match secrets.missing(&document) {
            Some(name) => Ok(Err(Going::Secret(name))),
            None => secrets.size(&document).map(Ok),
        };
        let bytes = on_disk(look).await.map_err(failed)?.map_err(|going| gone(namespace, going))?;
        if bytes > LARGEST_SECRETS_BYTES {
            return Err(bad_request(format!(
                "secrets: they have {bytes} bytes together, a function may have {LARGEST_SECRETS_BYTES}: name fewer, or \
                 keep large files in the image"
            )));
        }
        Ok(())
    }
}

/// What a deployment counts on, and is not there or will not be in a moment.
pub(super) fn gone(namespace: &Namespace, going: Going) -> Refusal {
    match going {
        Going::Namespace => {
            refuse(StatusCode::CONFLICT, format!("namespace {namespace} is being removed, try again"))
        }
        Going::Secret(name) => bad_request(format!("unable to find secret: {name}")),
    }
}

fn deployment_failed(key: &Key, image: &str, error: &Error, replace: bool) -> Refusal {
    match error {
        Error::ImageMissing { reference } => {
            let advice = if reference.starts_with("localhost/") {
                "images of localhost are those that were built into the appliance: build it in, or name one that is \
                 there"
            } else {
                "it is not pulled because pull_policy in [registries] of bothy.toml is \"Never\""
            };
            not_pulled(image, &format!("{reference} is not on this machine, and {advice}"), replace)
        }
        Error::Pull { reason, .. } => not_pulled(image, reason, replace),
        error => bad_request(format!("unable to create container: {}, error: {error}", key.name)),
    }
}

fn not_pulled(image: &str, reason: &str, replace: bool) -> Refusal {
    let status = if replace { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::BAD_REQUEST };
    refuse(status, format!("unable to pull image {image}: cannot pull: {reason}"))
}

fn status(function: &Function) -> Option<Status> {
    let document = function.document()?;
    Some(Status::new(&document, function.available(), function.calls.load(Ordering::Relaxed)))
}

/// What a task of our own gave; where it panicked, so do we.
pub(super) fn unwound<T>(outcome: Result<T, tokio::task::JoinError>) -> T {
    outcome.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// A namespace by its name; an empty one is the default one.
pub(super) fn named(text: &str) -> Option<Namespace> {
    if text.is_empty() { Some(Namespace::default()) } else { text.parse().ok() }
}

/// Names for a message, not all where there are many.
pub(super) fn list(names: &[String]) -> String {
    let mut text = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        text.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    text
}

pub(super) fn namespace_not_valid() -> Refusal {
    bad_request("namespace not valid")
}

pub(super) fn bad_request(message: impl Into<String>) -> Refusal {
    refuse(StatusCode::BAD_REQUEST, message)
}

/// The body's namespace, or the query's where the body has none: clients of both kinds exist.
pub(super) fn or_query(namespace: String, query: Option<&str>) -> String {
    if namespace.is_empty() { parameter(query, "namespace") } else { namespace }
}

/// A query parameter's last value, or nothing.
pub(super) fn parameter(query: Option<&str>, name: &str) -> String {
    Query::parse(query).last(name).unwrap_or_default().to_owned()
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refusal> {
    let bytes = read(request).await?;
    wire::parse(bytes.reader()).map_err(|error| bad_request(error.to_string()))
}

/// A request's body.
pub async fn read(request: Request<Incoming>) -> Result<impl Buf, Refusal> {
    let body = Limited::new(request.into_body(), LARGEST_BODY).collect();
    let Ok(body) = tokio::time::timeout(BODY_PATIENCE, body).await else {
        return Err(refuse(StatusCode::REQUEST_TIMEOUT, "the request's body did not come in time"));
    };
    match body {
        Ok(body) => Ok(body.aggregate()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let message = format!("the request's body is longer than {LARGEST_BODY} bytes");
            Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, message))
        }
        Err(error) => Err(bad_request(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        assert_eq!(parameter(Some("namespace=a&x=1&namespace=b"), "namespace"), "b");
        assert_eq!(parameter(Some("namespaces=a"), "namespace"), "");
        assert_eq!(parameter(None, "namespace"), "");
        assert_eq!(or_query("a".into(), Some("namespace=b")), "a");
        assert_eq!(or_query(String::new(), Some("namespace=b")), "b");
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<_> = (0..10).map(|number| number.to_string()).collect();
        assert_eq!(list(&names), "0, 1, 2, 3, 4, 5, 6, 7 and 2 more");
        assert_eq!(list(&names[..2]), "0, 1");
    }

    #[test]
    fn a_missing_image_is_told_in_full() {
        let key = Key::new("f", "").unwrap();
        let error = Error::ImageMissing { reference: "docker.io/library/f:latest".into() };
        let (post, put) =
            (deployment_failed(&key, "f", &error, false), deployment_failed(&key, "f", &error, true));
        assert_eq!((post.status, put.status), (StatusCode::BAD_REQUEST, StatusCode::INTERNAL_SERVER_ERROR));
        assert!(post.text.contains("\"Never\""), "{}", post.text);
        let error = Error::ImageMissing { reference: "localhost/f:latest".into() };
        assert!(deployment_failed(&key, "f", &error, false).text.contains("built into"));
        let error = Error::Pull { reference: "ghcr.io/f:1".into(), reason: "no way".into(), lasting: true };
        assert_eq!(
            deployment_failed(&key, "f", &error, true).text,
            "unable to pull image f: cannot pull: no way"
        );
    }
}
