//! What OpenFaaS's command line client sends, request by request, and what it needs to see: the statuses that it takes
//! for success, those that make it try another way, and the fields that it reads without asking whether they are there.

use std::time::Instant;

use hyper::Method;
use serde_json::{Value, json};

use super::namespaces::inside;
use super::{IMAGE, PATIENCE, image, ready};
use crate::lab::{Answer, Lab};

const FUNCTIONS: &str = "/system/functions";
const SECRETS: &str = "/system/secrets";

/// As the client: every status that it may get is its own business.
async fn send(lab: &Lab, method: Method, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let headers = [
        ("authorization", crate::lab::BASIC),
        ("content-type", "application/json"),
        ("user-agent", "faas-cli/0.17.0"),
        ("accept-encoding", "gzip"),
    ];
    lab.ask_with(method, path, &body, &headers).await.unwrap()
}

/// `deploy`: PUT, and POST where there is no such function. Gives the method that did it.
async fn deploy(lab: &Lab, body: &Value) -> Method {
    let put = send(lab, Method::PUT, FUNCTIONS, body).await;
    let (method, last) = match put.status.as_u16() {
        404 => (Method::POST, send(lab, Method::POST, FUNCTIONS, body).await),
        _ => (Method::PUT, put),
    };
    assert!(
        [200, 201, 202].contains(&last.status.as_u16()),
        "{method} {body}: {} {}",
        last.status,
        last.text
    );
    method
}

#[test]
fn the_command_line_client_is_served() {
    inside("client::the_command_line_client_is_served", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        // `ready`
        ready(&lab).await;
        version(&lab).await;
        // `login`
        assert_eq!(send(&lab, Method::GET, FUNCTIONS, &Value::Null).await.json(), json!([]));
        let refused = lab.ask_with(Method::GET, FUNCTIONS, "", &[]).await.unwrap();
        assert_eq!(refused.status.as_u16(), 401);
        namespaces(&lab).await;
        for namespace in ["", "dev"] {
            secrets(&lab, namespace).await;
            functions(&lab, namespace).await;
        }
        // `namespace remove`
        let body = json!({"name": "dev", "labels": {"openfaas": "1"}});
        let removed = send(&lab, Method::DELETE, "/system/namespace/dev", &body).await;
        assert!([200, 201, 202].contains(&removed.status.as_u16()), "{}", removed.text);
        assert_eq!(send(&lab, Method::DELETE, "/system/namespace/dev", &body).await.status.as_u16(), 404);
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

/// `version`: it follows all of these without a look.
async fn version(lab: &Lab) {
    let info = send(lab, Method::GET, "/system/info", &Value::Null).await;
    assert_eq!(info.status.as_u16(), 200);
    let info = info.json();
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

/// `namespaces`, `namespace create`, `get`, `update`.
async fn namespaces(lab: &Lab) {
    let names = async || send(lab, Method::GET, "/system/namespaces", &Value::Null).await.json();
    assert_eq!(names().await, json!(["openfaas-fn"]));
    let mark = json!({"openfaas": "1"});
    let body = json!({"name": "dev", "annotations": mark, "labels": {"openfaas": "1", "demo": "true"}});
    let made = send(lab, Method::POST, "/system/namespace/", &body).await;
    assert!([200, 201, 202].contains(&made.status.as_u16()), "{}", made.text);
    assert_eq!(send(lab, Method::POST, "/system/namespace/", &body).await.status.as_u16(), 409);
    assert_eq!(names().await, json!(["openfaas-fn", "dev"]));
    let shown = send(lab, Method::GET, "/system/namespace/dev", &Value::Null).await;
    assert_eq!((shown.status.as_u16(), shown.json()), (200, body));
    let body = json!({"name": "dev", "annotations": mark, "labels": mark});
    let changed = send(lab, Method::PUT, "/system/namespace/dev", &body).await;
    assert!([200, 201, 202].contains(&changed.status.as_u16()), "{}", changed.text);
    let absent = json!({"name": "absent", "annotations": mark, "labels": mark});
    assert_eq!(send(lab, Method::PUT, "/system/namespace/absent", &absent).await.status.as_u16(), 404);
    assert_eq!(send(lab, Method::GET, "/system/namespace/absent", &Value::Null).await.status.as_u16(), 404);
}

fn secret(name: &str, namespace: &str, value: Option<(&str, &str)>) -> Value {
    let mut body = json!({"name": name});
    if !namespace.is_empty() {
        body["namespace"] = json!(namespace);
    }
    if let Some((value, raw)) = value {
        body["value"] = json!(value);
        body["rawValue"] = json!(raw);
    }
    body
}

fn in_query(namespace: &str) -> String {
    if namespace.is_empty() { String::new() } else { format!("?namespace={namespace}") }
}

/// `secret create`, `list`, `update`, `remove`, `apply`.
async fn secrets(lab: &Lab, namespace: &str) {
    let list = async || {
        let listed = send(lab, Method::GET, &format!("{SECRETS}{}", in_query(namespace)), &Value::Null).await;
        assert!([200, 202].contains(&listed.status.as_u16()), "{}", listed.text);
        listed.json()
    };
    let status = async |method: Method, body: Value| send(lab, method, SECRETS, &body).await.status.as_u16();
    assert_eq!(list().await, json!([]));
    // From a file the client sends both, the trimmed text and the bytes.
    let first = secret("api-key", namespace, Some(("one", "b25lCg==")));
    assert!([200, 201, 202].contains(&status(Method::POST, first.clone()).await));
    let shown = if namespace.is_empty() { "openfaas-fn" } else { namespace };
    assert_eq!(list().await, json!([{"name": "api-key", "namespace": shown}]));
    // `create --replace` goes on to PUT at this one.
    assert_eq!(status(Method::POST, first).await, 409);
    let mut second = secret("api-key", namespace, None);
    second["value"] = json!("two");
    assert!([200, 202].contains(&status(Method::PUT, second).await));
    assert_eq!(status(Method::PUT, secret("none", namespace, Some(("x", "eA==")))).await, 404);
    assert_eq!(status(Method::DELETE, secret("none", namespace, None)).await, 404);
    // The namespace is in the body alone.
    assert!([200, 202].contains(&status(Method::DELETE, secret("api-key", namespace, None)).await));
    assert_eq!(list().await, json!([]));

    // `apply` while a function holds the secret: it is removed and made again, and the function has the new value.
    let made = secret("applied", namespace, Some(("three", "dGhyZWU=")));
    assert_eq!(status(Method::POST, made).await, 201);
    let mut body = json!({"service": "holder", "image": IMAGE, "labels": {}, "annotations": {},
                          "envProcess": "/bin/cat /var/openfaas/secrets/applied", "secrets": ["applied"]});
    if !namespace.is_empty() {
        body["namespace"] = json!(namespace);
    }
    assert_eq!(deploy(lab, &body).await, Method::POST);
    let next = secret("applied", namespace, Some(("four", "Zm91cg==")));
    assert_eq!(status(Method::DELETE, secret("applied", namespace, None)).await, 200);
    assert_eq!(status(Method::POST, next).await, 201);
    let answer = lab.expect(200, Method::POST, &format!("/function/holder.{shown}"), "").await;
    assert_eq!(answer.text, "four");
    remove(lab, "holder", namespace).await;
    assert_eq!(status(Method::DELETE, secret("applied", namespace, None)).await, 200);
}

/// `remove`
async fn remove(lab: &Lab, name: &str, namespace: &str) {
    let mut body = json!({"functionName": name});
    if !namespace.is_empty() {
        body["namespace"] = json!(namespace);
    }
    let removed = send(lab, Method::DELETE, FUNCTIONS, &body).await;
    assert!([200, 201, 202].contains(&removed.status.as_u16()), "{}", removed.text);
    assert_eq!(send(lab, Method::DELETE, FUNCTIONS, &body).await.status.as_u16(), 404);
}

/// `deploy`, `list`, `describe`, `ready NAME`, `invoke`, `remove`.
async fn functions(lab: &Lab, namespace: &str) {
    let mut body = json!({
        "service": "figlet", "image": IMAGE, "envProcess": "/bin/cat",
        "envVars": {"write_debug": "true"}, "constraints": ["node.platform.os == linux"],
        "labels": {"com.openfaas.scale.zero": "false"}, "annotations": {"topic": "hay"},
        "limits": {"memory": "128Mi"}, "readOnlyRootFilesystem": true,
    });
    if !namespace.is_empty() {
        body["namespace"] = json!(namespace);
    }
    assert_eq!(deploy(lab, &body).await, Method::POST);
    assert_eq!(deploy(lab, &body).await, Method::PUT);
    let shown = if namespace.is_empty() { "openfaas-fn" } else { namespace };
    let query = in_query(namespace);
    // `ready`: a look each second.
    let begun = Instant::now();
    let describe = format!("/system/function/figlet?namespace={namespace}&usage=1");
    let one = loop {
        let one = send(lab, Method::GET, &describe, &Value::Null).await;
        assert_eq!(one.status.as_u16(), 200, "{}", one.text);
        if one.json()["availableReplicas"] == 1 {
            break one.json();
        }
        assert!(begun.elapsed() < PATIENCE, "{}", one.text);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    let invoked = lab.expect(200, Method::POST, &format!("/function/figlet.{shown}"), "hello").await;
    assert_eq!(invoked.text, "hello");
    let list = send(lab, Method::GET, &format!("{FUNCTIONS}{query}"), &Value::Null).await;
    assert_eq!(list.status.as_u16(), 200);
    let list = list.json();
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    for status in [&one, &list[0]] {
        assert_eq!((&status["name"], &status["namespace"]), (&json!("figlet"), &json!(shown)));
        for field in ["image", "envProcess", "envVars", "constraints", "annotations", "limits"] {
            assert_eq!(status[field], body[field], "{field}");
        }
        assert_eq!(status["readOnlyRootFilesystem"], true);
        assert_eq!(status["labels"]["com.openfaas.scale.zero"], "false");
        assert!(status["createdAt"].as_str().is_some_and(|text| text.ends_with('Z')), "{status}");
        assert_eq!(status["replicas"], 1);
    }
    assert_eq!(list[0]["invocationCount"], 1);
    let absent = send(lab, Method::GET, "/system/function/absent?usage=1", &Value::Null).await;
    assert_eq!(absent.status.as_u16(), 404);
    // `deploy --replace`
    remove(lab, "figlet", namespace).await;
    let again = send(lab, Method::POST, FUNCTIONS, &body).await;
    assert!([200, 201, 202].contains(&again.status.as_u16()), "{}", again.text);
    remove(lab, "figlet", namespace).await;
    let list = send(lab, Method::GET, &format!("{FUNCTIONS}{query}"), &Value::Null).await;
    assert_eq!(list.json(), json!([]));
}
