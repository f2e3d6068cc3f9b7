//! The API below `/system`, and `/healthz`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Buf;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde::de::DeserializeOwned;

use super::Gateway;
use super::reply::{Body, Refusal, empty, json, refuse, text};
use super::wire::{Deletion, Deployment, Info, Scaling, Status};
use crate::containerd::normalise;
use crate::desired::Document;
use crate::error::Error;
use crate::key::Key;
use crate::reconcile::{Function, Refused, State};
use crate::runtime::Limits;

/// Largest document that the API takes: annotations may be long, and somebody with the password is not the enemy.
const LARGEST_BODY: usize = 16 << 20;

/// How long a document may take to come.
const BODY_PATIENCE: Duration = Duration::from_secs(60);

/// How long containerd may take to tell that it is well.
const HEALTH: Duration = Duration::from_secs(3);

/// An answer, or the refusal that takes its place.
type Answer = Result<Response<Body>, Refusal>;

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
        json(&Info::new())
    }

    /// All functions of a namespace, by name.
    pub fn list(&self, query: Option<&str>) -> Answer {
        let wanted =
            Key::new("any", &parameter(query, "namespace")).ok_or_else(namespace_not_valid)?.namespace;
        let mut found: Vec<_> =
            self.functions.all().into_iter().filter(|f| f.key.namespace == wanted).collect();
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(json(&found.iter().filter_map(|function| status(function)).collect::<Vec<_>>()))
    }

    /// One function.
    pub fn describe(&self, name: &str, query: Option<&str>) -> Answer {
        let namespace = parameter(query, "namespace");
        let key = if namespace.is_empty() { Key::from_path(name) } else { Key::new(name, &namespace) };
        if key.is_none() && Key::new("any", &namespace).is_none() {
            return Err(namespace_not_valid());
        }
        let found = key.and_then(|key| self.functions.get(&key)).and_then(|function| status(&function));
        Ok(found.map_or_else(|| empty(StatusCode::NOT_FOUND), |status| json(&status)))
    }

    /// Deploys a function: POST a new one, PUT (`replace`) a new version.
    pub async fn deploy(&self, request: Request<Incoming>, replace: bool) -> Answer {
        let deployment: Deployment = body(request).await?;
        let (service, namespace) = (deployment.service.clone(), deployment.namespace.clone());
        let key = self.key(&service, &namespace)?;
        if replace && !self.exists(&key) {
            return Err(refuse(StatusCode::NOT_FOUND, format!("function: {key} not found")));
        }
        if !self.namespace_is_open(&key).await? {
            return Err(namespace_not_valid());
        }
        let document = deployment.document(&key);
        self.check(&document)?;
        let image = document.image.clone();
        match self.functions.deploy(&key, document, replace).await {
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

    /// Lets a function run or rest; more than one instance is one.
    pub async fn scale(&self, request: Request<Incoming>, name: &str) -> Answer {
        let query = request.uri().query().map(str::to_owned);
        let bytes = read(request).await.map_err(|_| bad_request("Error reading request body"))?;
        let scaling: Scaling = serde_json::from_reader(bytes.reader())
            .map_err(|_| bad_request("Error unmarshalling request body"))?;
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

    /// The namespaces that functions may be in; the default one first.
    pub async fn namespaces(&self) -> Answer {
        let mut names = self.open_namespaces().await?;
        names.sort();
        let default = provisioning::Namespace::default().to_string();
        names.retain(|name| *name != default);
        names.insert(0, default);
        Ok(json(&names))
    }

    fn exists(&self, key: &Key) -> bool {
        self.functions.get(key).is_some_and(|function| function.document().is_some())
    }

    fn key(&self, name: &str, namespace: &str) -> Result<Key, Refusal> {
        if Key::new("any", namespace).is_none() {
            return Err(namespace_not_valid());
        }
        Key::new(name, namespace).ok_or_else(|| {
            bad_request(format!(
                "service: {name:?} is no function name, expected small letters, digits and single hyphens between \
                 them, at most 63"
            ))
        })
    }

    async fn namespace_is_open(&self, key: &Key) -> Result<bool, Refusal> {
        Ok(key.namespace == provisioning::Namespace::default()
            || self.open_namespaces().await?.iter().any(|name| name == key.namespace.as_str()))
    }

    /// containerd's namespaces that carry OpenFaaS's mark.
    async fn open_namespaces(&self) -> Result<Vec<String>, Refusal> {
        let all = self.world.containerd.namespaces().await;
        let all = all.map_err(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        let marked = |value: Option<&String>| value.is_some_and(|value| value == "1" || value == "true");
        Ok(all.into_iter().filter(|ns| marked(ns.labels.get("openfaas"))).map(|ns| ns.name).collect())
    }

    /// What can be known to be wrong before anything is started.
    fn check(&self, document: &Document) -> Result<(), Refusal> {
        if normalise(&document.image).is_none() {
            return Err(bad_request(format!("image {:?} is no image reference", document.image)));
        }
        Limits::parse(document.limits.as_ref()).map_err(|error| bad_request(format!("limits: {error}")))?;
        Limits::parse(document.requests.as_ref())
            .map_err(|error| bad_request(format!("requests: {error}")))?;
        let odd = |(name, value): (&String, &String)| {
            name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
        };
        if let Some((name, _)) = document.environment.iter().find(|pair| odd(*pair)) {
            return Err(bad_request(format!("envVars: {name:?} cannot be an environment variable")));
        }
        if document.env_process.as_ref().is_some_and(|text| text.contains('\0')) {
            return Err(bad_request("envProcess: holds a zero byte"));
        }
        self.world
            .missing_secret(document)
            .map_or(Ok(()), |name| Err(bad_request(format!("unable to find secret: {name}"))))
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
    let available = matches!(function.state(), State::Ready(_));
    Some(Status::new(&document, available, function.calls.load(Ordering::Relaxed)))
}

fn namespace_not_valid() -> Refusal {
    bad_request("namespace not valid")
}

fn bad_request(message: impl Into<String>) -> Refusal {
    refuse(StatusCode::BAD_REQUEST, message)
}

/// The body's namespace, or the query's where the body has none: clients of both kinds exist.
fn or_query(namespace: String, query: Option<&str>) -> String {
    if namespace.is_empty() { parameter(query, "namespace") } else { namespace }
}

/// A query parameter's last value. Names and namespaces need no percent signs; what has some is no name.
fn parameter(query: Option<&str>, name: &str) -> String {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.rev().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refusal> {
    let bytes = read(request).await?;
    serde_json::from_reader(bytes.reader()).map_err(|error| bad_request(error.to_string()))
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
    fn a_missing_image_is_told_in_full() {
        let key = Key::new("f", "").unwrap();
        let error = Error::ImageMissing { reference: "docker.io/library/f:latest".into() };
        let (post, put) =
            (deployment_failed(&key, "f", &error, false), deployment_failed(&key, "f", &error, true));
        assert_eq!((post.status, put.status), (StatusCode::BAD_REQUEST, StatusCode::INTERNAL_SERVER_ERROR));
        assert!(post.text.contains("\"Never\""), "{}", post.text);
        let error = Error::ImageMissing { reference: "localhost/f:latest".into() };
        assert!(deployment_failed(&key, "f", &error, false).text.contains("built into"));
        let error = Error::Pull { reference: "ghcr.io/f:1".into(), reason: "no way".into() };
        assert_eq!(
            deployment_failed(&key, "f", &error, true).text,
            "unable to pull image f: cannot pull: no way"
        );
    }
}
