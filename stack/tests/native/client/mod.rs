//! What OpenFaaS's command line client (faas-cli 0.18) sends for each command that talks to a gateway, as it was
//! recorded, and what it needs to see: the statuses that it takes for success, those that make it try another way, and
//! the fields that it reads without asking whether they are there. `program` runs the client itself, where there is one.

mod functions;
mod logs;
mod namespaces;
mod program;
mod secrets;

use hyper::Method;
use serde_json::{Value, json};

use crate::lab::{Answer, BASIC, Lab};
use crate::{image, ready};

const FUNCTIONS: &str = "/system/functions";

/// `login` and `ready` do not say who they are.
const UNNAMED: (&str, &str) = ("user-agent", "Go-http-client/1.1");

/// A gateway and, beside the default one, the namespace `dev`.
async fn start_with_dev(lab: &mut Lab) {
    image(lab, "one", "here\n");
    lab.start_containerd();
    lab.start_gateway();
    ready(lab).await;
    let dev = json!({"name": "dev", "labels": {"openfaas": "1"}});
    lab.expect(201, Method::POST, "/system/namespace/", &dev.to_string()).await;
}

/// A request as most commands make it. Every status that they may get is their own business.
async fn send(lab: &Lab, method: Method, path: &str, body: &Value) -> Answer {
    as_administrator(lab, "faas-cli/0.18.0", method, path, body).await
}

/// The same of the commands about namespaces, which go through a library.
async fn send_by_library(lab: &Lab, method: Method, path: &str, body: &Value) -> Answer {
    as_administrator(lab, "openfaas-go-sdk", method, path, body).await
}

async fn as_administrator(lab: &Lab, agent: &str, method: Method, path: &str, body: &Value) -> Answer {
    let mut headers = vec![("user-agent", agent), ("authorization", BASIC), ("accept-encoding", "gzip")];
    let mut text = String::new();
    if !body.is_null() {
        headers.push(("content-type", "application/json"));
        text = body.to_string();
    }
    lab.ask_with(method, path, &text, &headers).await.unwrap()
}

/// `invoke`: without the password, which is no business of functions, and always with a namespace.
async fn invoke(lab: &Lab, method: Method, rest: &str, body: &str, more: &[(&str, &str)]) -> Answer {
    let agent = ("user-agent", "faas-cli/0.18.0 (openfaas; linux; amd64)");
    let headers = [&[agent, ("content-type", "text/plain"), ("accept-encoding", "gzip")], more].concat();
    lab.ask_with(method, &format!("/function/{rest}"), body, &headers).await.unwrap()
}

/// An answer with one of these statuses.
fn one_of(answer: Answer, statuses: &[u16]) -> Answer {
    let status = answer.status.as_u16();
    assert!(statuses.contains(&status), "{status} is none of {statuses:?}: {}", answer.text);
    answer
}

/// Left out where no `--namespace` was given.
fn with_namespace(mut body: Value, namespace: &str) -> Value {
    if !namespace.is_empty() {
        body["namespace"] = json!(namespace);
    }
    body
}

fn in_query(namespace: &str) -> String {
    if namespace.is_empty() { String::new() } else { format!("?namespace={namespace}") }
}

/// What the client shows where it sent none.
fn shown(namespace: &str) -> &str {
    if namespace.is_empty() { "openfaas-fn" } else { namespace }
}

/// `deploy`: PUT, and POST where there is no such function. Gives the method that did it. Of 200, 201 and 202, which it
/// prints as done, it ends with status 0 after two.
async fn deploy(lab: &Lab, body: &Value) -> Method {
    let put = send(lab, Method::PUT, FUNCTIONS, body).await;
    if put.status == 404 {
        one_of(send(lab, Method::POST, FUNCTIONS, body).await, &[200, 202]);
        return Method::POST;
    }
    // After 200, and no other, it says that the function was there.
    one_of(put, &[200]);
    Method::PUT
}

/// `remove`
async fn remove(lab: &Lab, name: &str, namespace: &str) {
    let body = with_namespace(json!({"functionName": name}), namespace);
    one_of(send(lab, Method::DELETE, FUNCTIONS, &body).await, &[200, 201, 202]);
    one_of(send(lab, Method::DELETE, FUNCTIONS, &body).await, &[404]);
}
