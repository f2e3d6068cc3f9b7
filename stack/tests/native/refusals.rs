//! What is refused, by status and text: calls, scaling, and deployments that the other files do not have.

use std::fs;

use hyper::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::invocation::start;
use super::namespaces::inside;
use super::{IMAGE, deployment, image, ready, stand_in};
use crate::lab::Lab;

async fn refused(lab: &Lab, method: Method, path: &str, body: &str, status: u16, text: &str) {
    let answer = lab.expect(status, method.clone(), path, body).await;
    assert_eq!(answer.text.trim_end(), text, "{method} {path} {body}");
}

#[test]
fn of_the_api() {
    inside("refusals::of_the_api", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        let functions = "/system/functions";
        lab.expect(200, Method::POST, functions, &deployment("f", IMAGE)).await;
        let namespace = r#"{"name":"dev","labels":{"openfaas":"1"}}"#;
        lab.expect(201, Method::POST, "/system/namespace/", namespace).await;
        let exists = "unable to create container: f, error: f.openfaas-fn exists already; update it with PUT";
        let variable = json!({"service": "g", "image": IMAGE, "envVars": {"A=B": "c"}}).to_string();
        let zero = json!({"service": "g", "image": IMAGE, "envProcess": "a\0b"}).to_string();
        let large = " ".repeat((16 << 20) + 1);
        for (method, path, body, status, text) in [
            (Method::POST, functions, deployment("f", IMAGE).as_str(), 400, exists),
            (Method::PUT, functions, &deployment("g", IMAGE), 404, "function: g.openfaas-fn not found"),
            (Method::POST, functions, &variable, 400, "envVars: \"A=B\" cannot be an environment variable"),
            (Method::POST, functions, &zero, 400, "envProcess: holds a zero byte"),
            (Method::POST, functions, &large, 413, "the request's body is longer than 16777216 bytes"),
            (Method::DELETE, functions, r#"{"functionName":"g"}"#, 404, "function g.openfaas-fn not found"),
            (
                Method::DELETE,
                "/system/functions?namespace=dev",
                r#"{"functionName":"f"}"#,
                404,
                "function f.dev not found",
            ),
            (
                Method::POST,
                "/system/scale-function/g",
                r#"{"replicas":1}"#,
                404,
                "function: g.openfaas-fn not found",
            ),
            (
                Method::POST,
                "/system/scale-function/f?namespace=dev",
                r#"{"replicas":1}"#,
                404,
                "function: f.dev not found",
            ),
            (
                Method::POST,
                "/system/scale-function/f",
                r#"{"replicas":1,"namespace":"dev"}"#,
                404,
                "function: f.dev not found",
            ),
            (Method::POST, "/system/scale-function/f", "{", 400, "Error unmarshalling request body"),
            (Method::POST, "/system/scale-function/f", "", 400, "Error unmarshalling request body"),
            (Method::GET, "/system/function/g", "", 404, ""),
            (Method::GET, "/system/function/f?namespace=dev", "", 404, ""),
            (Method::GET, "/system/function/f?namespace=absent", "", 400, "namespace not valid"),
            (Method::GET, "/system/functions?namespace=absent", "", 400, "namespace not valid"),
        ] {
            refused(&lab, method, path, body, status, text).await;
        }
        // The same, done: by the query alone, in a namespace of its own.
        let mut body: serde_json::Value = serde_json::from_str(&deployment("g", IMAGE)).unwrap();
        body["namespace"] = json!("dev");
        lab.expect(200, Method::POST, functions, &body.to_string()).await;
        let path = "/system/scale-function/g?namespace=dev";
        lab.expect(200, Method::POST, path, r#"{"replicas":2}"#).await;
        let shown = lab.expect(200, Method::GET, "/system/function/g?namespace=dev", "").await.json();
        assert_eq!(shown["replicas"], 2);
        let path = "/system/functions?namespace=dev";
        lab.expect(200, Method::DELETE, path, r#"{"functionName":"g"}"#).await;
        assert_eq!(lab.expect(200, Method::GET, path, "").await.json(), json!([]));
        // All of that touched nobody else.
        assert_eq!(lab.expect(200, Method::GET, "/function/f", "").await.text, "here\n");
    });
}

#[test]
fn of_calls() {
    inside("refusals::of_calls", async |mut lab| {
        let never = "constraints = [\"node.platform.arch == pdp11\"]";
        let text = format!(
            "version = 1\n[gateway]\ntimeout = \"3s\"\n[functions.never]\nimage = \"{IMAGE}\"\n{never}\n"
        );
        fs::write(lab.folder.join("bothy.toml"), text).unwrap();
        let stage = start(&mut lab).await;
        let internal = async |path: &str, status: u16, text: &str| {
            let answer = lab.expect(status, Method::GET, path, "").await;
            assert_eq!(
                (answer.text.trim_end(), &answer.headers["x-openfaas-internal"]),
                (text, &"proxy".parse().unwrap())
            );
            for header in ["x-call-id", "x-start-time", "x-served-by"] {
                assert!(!answer.headers[header].is_empty(), "{header}");
            }
        };
        internal("/function/never", 503, "No endpoints available for: never.").await;
        // The function has more time than the gateway has patience.
        let body = json!({"service": "slow", "image": IMAGE, "envProcess": "/bin/sleep 100000",
                          "envVars": {"exec_timeout": "1m"}});
        lab.expect(200, Method::POST, "/system/functions", &body.to_string()).await;
        let began = std::time::Instant::now();
        refused(&lab, Method::GET, "/function/slow", "", 502, "").await;
        assert!(began.elapsed().as_secs() >= 3, "{:?}", began.elapsed());
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"slow"}"#).await;
        // It dies with a call inside, and nobody knows what it did with it.
        let [watchdog] = lab.processes("/watchdog")[..] else { panic!("there is one function") };
        let dying = async {
            let calls = || stage.calls.load(std::sync::atomic::Ordering::Relaxed);
            let before = calls();
            while calls() == before {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            kill(Pid::from_raw(watchdog), Signal::SIGKILL).unwrap();
        };
        tokio::join!(internal("/function/f/hang", 500, "Can't reach service for: f."), dying);
    });
}

/// A function without our watchdog, whose answer has no Content-Type.
#[test]
fn what_an_answer_does_not_say_is_said_for_it() {
    inside("refusals::what_an_answer_does_not_say_is_said_for_it", async |mut lab| {
        stand_in::bare_image(&lab);
        let _stage = start(&mut lab).await;
        stand_in::deploy_bare(&lab, "bare").await;
        for (asked, told) in [(Some("image/png"), "image/png"), (None, "text/plain")] {
            let headers: Vec<_> = asked.map(|kind| ("content-type", kind)).into_iter().collect();
            let answer = lab.ask_with(Method::POST, "/function/bare/x", "x", &headers).await.unwrap();
            assert!(answer.text.starts_with("POST /x\n"), "{}", answer.text);
            assert_eq!(answer.headers["content-type"], told);
        }
    });
}
