//! `ready`, `login`, `version`, `namespace list`, `create`, `get`, `update`, `remove`.

use hyper::Method;
use serde_json::{Value, json};

use super::{FUNCTIONS, UNNAMED, one_of, send, send_by_library};
use crate::lab::{BASIC, Lab};
use crate::namespaces::inside;
use crate::{PATIENCE, image};

#[test]
fn the_way_in_and_namespaces() {
    inside("client::namespaces::the_way_in_and_namespaces", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        login(&lab).await;
        version(&lab).await;
        namespaces(&lab).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

/// `ready`: without the password, again and again until there is a 200.
async fn ready(lab: &Lab) {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let health = lab.ask_with(Method::GET, "/healthz", "", &[UNNAMED]).await;
        if health.as_ref().is_ok_and(|answer| answer.status == 200) {
            return;
        }
        let last = health.map(|answer| (answer.status, answer.text));
        assert!(std::time::Instant::now() < end, "the gateway does not get ready: {last:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// `login`: what is not 200 is a failure, and 401 a wrong password. Then what others send who have not logged in.
async fn login(lab: &Lab) {
    for (authorization, status) in [(BASIC, 200), ("Basic YWRtaW46d3Jvbmc=", 401), ("Bearer ", 401)] {
        let headers = [UNNAMED, ("authorization", authorization), ("accept-encoding", "gzip")];
        let answer = lab.ask_with(Method::GET, FUNCTIONS, "", &headers).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{authorization}");
    }
}

/// `version`: it follows all of these without a look.
async fn version(lab: &Lab) {
    let info = one_of(send(lab, Method::GET, "/system/info", &Value::Null).await, &[200]).json();
    for path in [
        "/provider/provider",
        "/provider/orchestration",
        "/provider/version/release",
        "/provider/version/sha",
        "/version/release",
        "/version/sha",
        "/arch",
    ] {
        let found = info.pointer(path).and_then(Value::as_str).unwrap_or_default();
        assert!(!found.is_empty(), "{path}: {info}");
    }
}

async fn namespaces(lab: &Lab) {
    let send = async |method, path: &str, body: &Value| send_by_library(lab, method, path, body).await;
    let names = async || one_of(send(Method::GET, "/system/namespaces", &Value::Null).await, &[200]).json();
    let done = &[200, 201, 202];
    let (all, dev, absent) = ("/system/namespace/", "/system/namespace/dev", "/system/namespace/absent");
    assert_eq!(names().await, json!(["openfaas-fn"]));
    // The mark is in both, whatever else was asked for.
    let body = json!({"name": "dev", "annotations": {"openfaas": "1", "who": "me"},
                      "labels": {"demo": "true", "openfaas": "1"}});
    one_of(send(Method::POST, all, &body).await, done);
    let again = one_of(send(Method::POST, all, &body).await, &[409]);
    assert_eq!(again.text, "namespace dev already exists", "it is printed");
    assert_eq!(names().await, json!(["openfaas-fn", "dev"]));
    assert_eq!(one_of(send(Method::GET, dev, &Value::Null).await, &[200]).json(), body);

    let body = json!({"name": "dev", "annotations": {"openfaas": "1"}, "labels": {"openfaas": "1"}});
    one_of(send(Method::PUT, dev, &body).await, done);
    assert_eq!(one_of(send(Method::GET, dev, &Value::Null).await, &[200]).json(), body);
    let other = json!({"name": "absent", "annotations": {"openfaas": "1"}, "labels": {"openfaas": "1"}});
    one_of(send(Method::PUT, absent, &other).await, &[404]);
    one_of(send(Method::GET, absent, &Value::Null).await, &[404]);

    // Of a removal the name and the mark.
    let body = json!({"name": "dev", "labels": {"openfaas": "1"}});
    one_of(send(Method::DELETE, dev, &body).await, done);
    one_of(send(Method::DELETE, dev, &body).await, &[404]);
    assert_eq!(names().await, json!(["openfaas-fn"]));
}
