//! `deploy`, `up`, `store deploy`, `list`, `describe`, `ready NAME`, `invoke`, `remove`. (`up` is `deploy` once it
//! has built; `store deploy` is `deploy` with what the store says. The store is no gateway's.)

use std::time::Instant;

use hyper::Method;
use serde_json::{Value, json};

use super::{
    FUNCTIONS, deploy, in_query, invoke, one_of, remove, send, shown, start_with_dev, with_namespace,
};
use crate::lab::Lab;
use crate::namespaces::inside;
use crate::{IMAGE, PATIENCE};

#[test]
fn functions() {
    inside("client::functions::functions", async |mut lab| {
        lab.start_nats();
        start_with_dev(&mut lab).await;
        lab.until_queues_answer().await;
        for namespace in ["", "dev"] {
            let secret = with_namespace(json!({"name": "key", "value": "hush"}), namespace);
            lab.expect(201, Method::POST, "/system/secrets", &secret.to_string()).await;
            deployments(&lab, namespace).await;
            let body = full(namespace);
            assert_eq!(deploy(&lab, &body).await, Method::POST);
            descriptions(&lab, namespace, &body).await;
            invocations(&lab, namespace).await;
            remove(&lab, "full", namespace).await;
            assert_eq!(list(&lab, namespace).await, json!([]));
        }
        let unknown = send(&lab, Method::GET, "/system/functions?namespace=gone", &Value::Null).await;
        assert_eq!(one_of(unknown, &[400]).text, "namespace not valid", "it is printed");
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

/// `deploy --image --name` with nothing else.
fn bare(name: &str, namespace: &str) -> Value {
    let body = json!({"service": name, "image": IMAGE, "labels": {}, "annotations": {}});
    with_namespace(body, namespace)
}

/// With all that there is a flag for, or a key in stack.yaml.
fn full(namespace: &str) -> Value {
    let body = json!({
        "service": "full", "image": IMAGE, "envProcess": "env", "envVars": {"A": "b=c", "B": "2"},
        "constraints": ["node.platform.os == linux"], "secrets": ["key"],
        "labels": {"canary": "true", "com.openfaas.scale.zero": "false"}, "annotations": {"topic": "a,b"},
        "limits": {"memory": "64Mi", "cpu": "100m"}, "requests": {"memory": "16Mi", "cpu": "10m"},
        "readOnlyRootFilesystem": true,
    });
    with_namespace(body, namespace)
}

/// `list`
async fn list(lab: &Lab, namespace: &str) -> Value {
    let path = format!("{FUNCTIONS}{}", in_query(namespace));
    one_of(send(lab, Method::GET, &path, &Value::Null).await, &[200]).json()
}

async fn deployments(lab: &Lab, namespace: &str) {
    let body = bare("bare", namespace);
    assert_eq!(deploy(lab, &body).await, Method::POST);
    assert_eq!(deploy(lab, &body).await, Method::PUT);
    // `--update=false`: what it refuses is printed, and so is what cannot be deployed.
    let refused = one_of(send(lab, Method::POST, FUNCTIONS, &body).await, &[400]);
    assert!(refused.text.contains("exists already; update it with PUT"), "{}", refused.text);
    let mut wrong = bare("wrong", namespace);
    wrong["secrets"] = json!(["absent"]);
    one_of(send(lab, Method::PUT, FUNCTIONS, &wrong).await, &[404]);
    let refused = one_of(send(lab, Method::POST, FUNCTIONS, &wrong).await, &[400]);
    assert_eq!(refused.text, "unable to find secret: absent");
    // `--replace --update=false`: it removes without a look at the answer, and makes it anew.
    remove(lab, "bare", namespace).await;
    one_of(send(lab, Method::POST, FUNCTIONS, &body).await, &[200, 202]);
    let answer = invoke(lab, Method::POST, &format!("bare.{}", shown(namespace)), "", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "here\n"));
    remove(lab, "bare", namespace).await;
}

/// `ready NAME`, `describe`, `list`.
async fn descriptions(lab: &Lab, namespace: &str, body: &Value) {
    let query =
        if namespace.is_empty() { "usage=1".to_owned() } else { format!("namespace={namespace}&usage=1") };
    // `ready`: a look each second.
    let end = Instant::now() + PATIENCE;
    let described = loop {
        let one = send(lab, Method::GET, &format!("/system/function/full?{query}"), &Value::Null).await;
        let one = one_of(one, &[200]).json();
        if one["availableReplicas"] == 1 {
            break one;
        }
        assert!(Instant::now() < end, "{one}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    let answer = invoke(lab, Method::POST, &format!("full.{}", shown(namespace)), "", &[]).await;
    one_of(answer, &[200]);
    let listed = list(lab, namespace).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    let mut labels = body["labels"].clone();
    labels["faas_function"] = json!("full");
    for status in [&described, &listed[0]] {
        assert_eq!((&status["name"], &status["namespace"]), (&json!("full"), &json!(shown(namespace))));
        for field in [
            "image",
            "envProcess",
            "envVars",
            "constraints",
            "secrets",
            "annotations",
            "limits",
            "requests",
            "readOnlyRootFilesystem",
        ] {
            assert_eq!(status[field], body[field], "{field}");
        }
        assert_eq!(status["labels"], labels);
        // It reads a time, or nothing of the answer.
        let created = status["createdAt"].as_str().unwrap_or_default();
        assert!(stack::timestamp::parse(created).is_some(), "{status}");
        assert_eq!((&status["replicas"], &status["availableReplicas"]), (&json!(1), &json!(1)));
    }
    // `describe` has this number from `list`.
    assert_eq!(listed[0]["invocationCount"], 1);
    let absent = send(lab, Method::GET, &format!("/system/function/absent?{query}"), &Value::Null).await;
    one_of(absent, &[404]);
}

/// `invoke`: methods, `--query`, `-H` and `--sign` reach the function.
async fn invocations(lab: &Lab, namespace: &str) {
    let name = format!("full.{}", shown(namespace));
    for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let rest = format!("{name}?a=1&b=x+y");
        let more = [("x-foo", "bar"), ("x-hub", "sha256=406e4b43")];
        let answer = one_of(invoke(lab, method.clone(), &rest, "hello", &more).await, &[200]);
        for line in [
            &format!("Http_Method={method}"),
            "Http_Query=a=1&b=x+y",
            "Http_Content_Type=text/plain",
            "Http_Content_Length=5",
            "Http_X_Foo=bar",
            "Http_X_Hub=sha256=406e4b43",
            "Http_User_Agent=faas-cli/0.18.0 (openfaas; linux; amd64)",
        ] {
            assert!(answer.text.lines().any(|found| found == line), "{line} is not in:\n{}", answer.text);
        }
        assert!(!answer.text.contains("Http_Authorization"), "{}", answer.text);
    }
    let absent = one_of(invoke(lab, Method::POST, "absent.openfaas-fn", "", &[]).await, &[404]);
    assert!(absent.text.contains("error finding function absent.openfaas-fn"), "{}", absent.text);
    // `invoke --async`
    let headers = [("content-type", "text/plain")];
    let answer = lab.ask_with(Method::POST, &format!("/async-function/{name}"), "x", &headers).await.unwrap();
    one_of(answer, &[202]);
}
