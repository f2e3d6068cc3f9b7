//! `secret create`, `list`, `update`, `remove`, `apply`.

use hyper::Method;
use serde_json::{Value, json};

use super::{deploy, in_query, invoke, one_of, remove, send, shown, start_with_dev, with_namespace};
use crate::lab::{Answer, Lab};
use crate::namespaces::inside;
use crate::{IMAGE, ready};

const SECRETS: &str = "/system/secrets";
/// What the commands take for done: `create`, and the others.
const MADE: &[u16] = &[200, 201, 202];
const DONE: &[u16] = &[200, 202];

#[test]
fn secrets() {
    inside("client::secrets::secrets", async |mut lab| {
        start_with_dev(&mut lab).await;
        for namespace in ["", "dev"] {
            one_by_one(&lab, namespace).await;
            apply(&lab, namespace).await;
        }
        let refused =
            one_of(send(&lab, Method::GET, "/system/secrets?namespace=gone", &Value::Null).await, &[400]);
        assert_eq!(refused.text, "namespace not valid");

        // Under the other's name both make it, and neither may be answered with what the other command takes for wrong.
        lab.stop_gateway();
        lab.arguments = ["--provider-name", "faasd"].map(str::to_owned).into();
        lab.start_gateway();
        ready(&lab).await;
        let secret = json!({"name": "key", "value": "1"});
        for (method, done) in
            [(Method::PUT, DONE), (Method::POST, MADE), (Method::PUT, DONE), (Method::DELETE, DONE)]
        {
            one_of(send(&lab, method, SECRETS, &secret).await, done);
        }
        one_of(send(&lab, Method::POST, SECRETS, &secret).await, MADE);
        one_of(send(&lab, Method::DELETE, SECRETS, &json!({"name": "key"})).await, DONE);
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

/// `list`
async fn names(lab: &Lab, namespace: &str) -> Value {
    let path = format!("{SECRETS}{}", in_query(namespace));
    one_of(send(lab, Method::GET, &path, &Value::Null).await, DONE).json()
}

async fn act(lab: &Lab, method: Method, namespace: &str, secret: Value) -> Answer {
    send(lab, method, SECRETS, &with_namespace(secret, namespace)).await
}

async fn one_by_one(lab: &Lab, namespace: &str) {
    assert_eq!(names(lab, namespace).await, json!([]));
    // A literal, or what came from its input, has no `rawValue`.
    let first = json!({"name": "api-key", "value": "one"});
    one_of(act(lab, Method::POST, namespace, first).await, MADE);
    assert_eq!(names(lab, namespace).await, json!([{"name": "api-key", "namespace": shown(namespace)}]));
    // `create` again: it prints that there is one. `create --replace` goes on to PUT. From a file it sends both, the
    // trimmed text and the bytes.
    let second = json!({"name": "api-key", "value": "two", "rawValue": "dHdvCg=="});
    one_of(act(lab, Method::POST, namespace, second.clone()).await, &[409]);
    one_of(act(lab, Method::PUT, namespace, second).await, DONE);
    one_of(act(lab, Method::PUT, namespace, json!({"name": "none", "value": "x"})).await, &[404]);
    one_of(act(lab, Method::DELETE, namespace, json!({"name": "none"})).await, &[404]);
    // The namespace is in the body alone.
    one_of(act(lab, Method::DELETE, namespace, json!({"name": "api-key"})).await, DONE);
    assert_eq!(names(lab, namespace).await, json!([]));
}

/// `apply` while a function holds the secret. In a namespace that was named it finds those that are there, removes them
/// and makes them again. Without one it knows none of what it is told (its own namespace is empty then): it makes them,
/// and goes on to PUT after 409. The function has the new value either way.
async fn apply(lab: &Lab, namespace: &str) {
    let once = async |value: &str, raw: &str| {
        let listed = names(lab, namespace).await;
        let there = |one: &Value| one["name"] == "applied" && one["namespace"] == namespace;
        if listed.as_array().unwrap().iter().any(there) {
            one_of(act(lab, Method::DELETE, namespace, json!({"name": "applied"})).await, DONE);
        }
        let secret = json!({"name": "applied", "value": value, "rawValue": raw});
        let made = act(lab, Method::POST, namespace, secret.clone()).await;
        if made.status == 409 {
            one_of(act(lab, Method::PUT, namespace, secret).await, DONE);
            return Method::PUT;
        }
        one_of(made, MADE);
        Method::POST
    };
    assert_eq!(once("three", "dGhyZWU=").await, Method::POST);
    let body = json!({"service": "holder", "image": IMAGE, "labels": {}, "annotations": {},
                      "envProcess": "/bin/cat /var/openfaas/secrets/applied", "secrets": ["applied"]});
    assert_eq!(deploy(lab, &with_namespace(body, namespace)).await, Method::POST);
    let way = if namespace.is_empty() { Method::PUT } else { Method::POST };
    assert_eq!(once("four", "Zm91cg==").await, way);
    let holder = format!("holder.{}", shown(namespace));
    let answer = one_of(invoke(lab, Method::POST, &holder, "", &[]).await, &[200]);
    assert_eq!(answer.text, "four");
    remove(lab, "holder", namespace).await;
    one_of(act(lab, Method::DELETE, namespace, json!({"name": "applied"})).await, DONE);
}
