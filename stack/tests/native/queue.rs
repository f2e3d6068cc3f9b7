//! Asynchronous calls, with a real NATS server and a real worker.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use super::ear::Ear;
use super::stand_in::bare_image;
use super::{PATIENCE, ready};
use crate::lab::{BASIC, Lab};
use crate::namespaces::inside;

/// Retries that a test can wait for.
pub const QUICK: &str = "version = 1\n[stack.queue]\ninitial_retry_wait = \"1s\"\nmax_retry_wait = \"2s\"\n\
                     max_retry_attempts = 2\nack_wait = \"5s\"\n";

/// Everything that there is, with that configuration.
pub async fn start(lab: &mut Lab, configuration: &str) {
    std::fs::write(lab.folder.join("bothy.toml"), configuration).unwrap();
    bare_image(lab);
    lab.start_nats();
    lab.start_containerd();
    lab.start_gateway();
    lab.start_worker();
    ready(lab).await;
    lab.until_queues_answer().await;
}

/// Makes an asynchronous call, and gives its identifier.
pub async fn call(lab: &Lab, path: &str, body: &str, headers: &[(&str, &str)]) -> String {
    let answer = lab.ask_with(Method::POST, &format!("/async-function/{path}"), body, headers).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.text, "");
    for header in ["x-call-id", "x-start-time", "x-served-by"] {
        assert!(answer.headers.contains_key(header), "{header}");
    }
    answer.headers["x-call-id"].to_str().unwrap().to_owned()
}

async fn status(lab: &Lab, id: &str) -> Value {
    lab.expect(200, Method::GET, &format!("/system/calls/{id}"), "").await.json()
}

/// Waits until a call is so.
pub async fn until(lab: &Lab, id: &str, state: &str) -> Value {
    let end = Instant::now() + PATIENCE * 2;
    loop {
        let shown = status(lab, id).await;
        if shown["state"] == state {
            return shown;
        }
        assert!(Instant::now() < end, "{shown} is not {state}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_call_is_made_as_it_came_and_its_answer_delivered() {
    inside("queue::a_call_is_made_as_it_came_and_its_answer_delivered", async |mut lab| {
        start(&mut lab, QUICK).await;
        let ear = Ear::deploy(&lab, "ear", &json!({})).await;
        let headers = [
            ("x-callback-url", "http://gateway:8080/function/ear/callback?n=1"),
            ("x-own", "a"),
            ("x-call-id", "my id/1"),
        ];
        let path = "/async-function/ear/a%2Fb?x=%20";
        let answer = lab.ask_with(Method::PUT, path, "body", &headers).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.headers["x-call-id"].as_bytes()), (202, &b"my id/1"[..]));
        let callback = ear.until("/callback", 1).await.remove(0);
        let made = ear.heard("/a%2Fb").remove(0);
        assert_eq!(
            (made.method.as_str(), made.target.as_str(), &made.body[..]),
            ("PUT", "/a%2Fb?x=%20", &b"body"[..])
        );
        assert_eq!((made.header("x-own"), made.header("x-call-id")), ("a", "my id/1"));
        assert_eq!(
            (callback.method.as_str(), callback.target.as_str(), &callback.body[..]),
            ("POST", "/callback?n=1", &b"body"[..])
        );
        for (name, value) in [
            ("x-function-status", "200"),
            ("x-function-name", "ear"),
            ("x-call-id", "my id/1"),
            ("x-own", "said"),
            ("x-retry", "0"),
            ("x-retry-max", "2"),
        ] {
            assert_eq!(callback.header(name), value, "{name}");
        }
        assert!(callback.header("x-duration-seconds").parse::<f64>().unwrap() > 0.0);
        let shown = until(&lab, "my%20id%2F1", "done").await;
        assert_eq!((shown["status"].as_u64(), shown["attempts"].as_u64()), (Some(200), Some(1)));
        assert_eq!(
            (&shown["function"], &shown["queue"]),
            (&json!("ear.openfaas-fn"), &json!("faas-request"))
        );
        // Without a name of its own, and without an answer that anybody wants.
        let id = call(&lab, "ear.openfaas-fn", "", &[]).await;
        until(&lab, &id, "done").await;
        let calls = ear.heard("/").into_iter().filter(|heard| !heard.header("x-call-id").is_empty());
        assert_eq!(calls.count(), 3);
        // What is refused.
        for (path, headers, wanted) in [
            ("none", &[][..], 404),
            ("ear", &[("x-callback-url", "nowhere")], 400),
            ("ear", &[("x-call-id", &"x".repeat(257))], 400),
        ] {
            let refused =
                lab.ask_with(Method::POST, &format!("/async-function/{path}"), "", headers).await.unwrap();
            assert_eq!(refused.status, wanted, "{path}");
        }
        lab.expect(404, Method::GET, "/system/calls/none", "").await;
        let unauthorised = lab.ask_with(Method::GET, &format!("/system/calls/{id}"), "", &[]).await.unwrap();
        assert_eq!(unauthorised.status, 401);
    });
}

#[test]
fn what_fails_is_made_again_and_then_given_up() {
    inside("queue::what_fails_is_made_again_and_then_given_up", async |mut lab| {
        start(&mut lab, QUICK).await;
        let ear = Ear::deploy(&lab, "ear", &json!({})).await;
        let back = [("x-callback-url", "http://gateway/function/ear/callback")];
        let flaky = call(&lab, "ear/flaky/2", "x", &back).await;
        let shown = until(&lab, &flaky, "done").await;
        assert_eq!((shown["status"].as_u64(), shown["attempts"].as_u64()), (Some(200), Some(3)));
        let callback = ear.until("/callback", 1).await.remove(0);
        assert_eq!((callback.header("x-retry"), callback.header("x-retry-max")), ("2", "2"));

        let dead = call(&lab, "ear/status/500?why", "body", &[back[0], ("authorization", "Bearer x")]).await;
        let waits = until(&lab, &dead, "retrying").await;
        assert!(waits["nextRetry"].is_string() && waits["status"] == 500, "{waits}");
        let shown = until(&lab, &dead, "dead").await;
        assert_eq!(shown["reason"], "status 500 after 3 attempts");
        let last = ear.until("/callback", 2).await.remove(1);
        assert_eq!((last.header("x-retry"), last.header("x-function-status")), ("2", "500"));
        // A status that is not in the list is an answer like any other.
        let other = call(&lab, "ear/status/404", "", &[]).await;
        assert_eq!(until(&lab, &other, "done").await["status"], 404);

        let letters = lab.expect(200, Method::GET, "/system/dead-letters?function=ear", "").await.json();
        assert_eq!(letters.as_array().unwrap().len(), 1);
        let letter = &letters[0];
        assert_eq!(
            (&letter["callId"], &letter["attempts"], &letter["bytes"]),
            (&json!(dead), &json!(3), &json!(4))
        );
        assert_eq!(lab.expect(200, Method::GET, "/system/dead-letters?queue=other", "").await.text, "[]");
        let number = letter["number"].as_u64().unwrap();
        let whole = lab.expect(200, Method::GET, &format!("/system/dead-letters/{number}"), "").await.json();
        assert_eq!((&whole["body"], &whole["query"]), (&json!("Ym9keQ=="), &json!("why")));
        assert_eq!(whole["headers"]["authorization"][0], "(not shown)");
        lab.expect(202, Method::POST, &format!("/system/dead-letters/{number}/replay"), "").await;
        lab.expect(404, Method::GET, &format!("/system/dead-letters/{number}"), "").await;
        until(&lab, &dead, "dead").await;
        assert_eq!(ear.heard("/status/500").len(), 6);
        // Whose function is gone can only be removed.
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"ear"}"#).await;
        let letters = lab.expect(200, Method::GET, "/system/dead-letters", "").await.json();
        let number = letters[0]["number"].as_u64().unwrap();
        let refused =
            lab.expect(409, Method::POST, &format!("/system/dead-letters/{number}/replay"), "").await;
        assert!(refused.text.contains("not deployed"), "{}", refused.text);
        lab.expect(200, Method::DELETE, &format!("/system/dead-letters/{number}"), "").await;
        lab.expect(404, Method::DELETE, &format!("/system/dead-letters/{number}"), "").await;
        assert_eq!(lab.expect(200, Method::GET, "/system/dead-letters", "").await.text, "[]");
    });
}

#[test]
fn a_slow_function_does_not_starve_a_fast_one() {
    inside("queue::a_slow_function_does_not_starve_a_fast_one", async |mut lab| {
        start(&mut lab, &format!("{QUICK}max_inflight = 8\n")).await;
        let slow = Ear::deploy(&lab, "slow", &json!({})).await;
        let fast = Ear::deploy(&lab, "fast", &json!({})).await;
        for _ in 0..100 {
            call(&lab, "slow/slow/5000", "", &[]).await;
        }
        slow.until("/slow", 6).await;
        for _ in 0..50 {
            call(&lab, "fast", "", &[]).await;
        }
        fast.until("/", 50).await;
        // Those of the slow one that began before had not even ended twice.
        assert!(slow.heard("/").len() <= 3 * 8, "{}", slow.heard("/").len());
        assert!(slow.most() <= 6, "{}", slow.most());
    });
}

#[test]
fn a_function_that_has_too_much_to_do_slows_its_own_calls_down() {
    inside("queue::a_function_that_has_too_much_to_do_slows_its_own_calls_down", async |mut lab| {
        let many = QUICK.replace("max_retry_attempts = 2", "max_retry_attempts = 50");
        start(&mut lab, &many).await;
        let busy = Ear::deploy(&lab, "busy", &json!({})).await;
        let other = Ear::deploy(&lab, "other", &json!({})).await;
        let mut ids = BTreeSet::new();
        for _ in 0..60 {
            ids.insert(call(&lab, "busy/busy/2", "", &[]).await);
        }
        for _ in 0..60 {
            call(&lab, "other/slow/20", "", &[]).await;
        }
        other.until("/slow", 60).await;
        for id in &ids {
            assert_eq!(until(&lab, id, "done").await["status"], 200);
        }
        assert!(other.most() > 2, "{}", other.most());
        assert!(busy.heard("/").len() < 60 * 6, "{} attempts of 60 calls", busy.heard("/").len());
    });
}

#[test]
fn a_call_can_be_cancelled() {
    inside("queue::a_call_can_be_cancelled", async |mut lab| {
        start(&mut lab, &format!("{QUICK}max_inflight = 1\n")).await;
        let ear = Ear::deploy(&lab, "ear", &json!({})).await;
        let running = call(&lab, "ear/slow/600000", "", &[]).await;
        ear.until("/slow", 1).await;
        let waiting = call(&lab, "ear/never", "", &[]).await;
        assert_eq!(status(&lab, &waiting).await["state"], "queued");
        assert_eq!(until(&lab, &running, "running").await["attempts"], 0);
        lab.expect(202, Method::DELETE, &format!("/system/calls/{waiting}"), "").await;
        assert_eq!(status(&lab, &waiting).await["state"], "cancelled");
        let refused = lab.expect(409, Method::DELETE, &format!("/system/calls/{waiting}"), "").await;
        assert!(refused.text.contains("is cancelled"), "{}", refused.text);
        // As OpenFaaS has it; and whoever may not, does not.
        let path = format!("/async-function/{running}");
        assert_eq!(lab.ask_with(Method::DELETE, &path, "", &[]).await.unwrap().status, 404);
        assert_eq!(
            lab.ask_with(Method::DELETE, &path, "", &[("authorization", BASIC)]).await.unwrap().status,
            202
        );
        until(&lab, &running, "cancelled").await;
        let next = call(&lab, "ear/next", "", &[]).await;
        until(&lab, &next, "done").await;
        assert_eq!(ear.heard("/never").len(), 0);
        let gone = lab.expect(409, Method::DELETE, &format!("/system/calls/{next}"), "").await;
        assert!(gone.text.contains("is done"), "{}", gone.text);
    });
}

#[test]
fn large_bodies_go_to_the_disk_and_are_removed() {
    inside("queue::large_bodies_go_to_the_disk_and_are_removed", async |mut lab| {
        start(&mut lab, &format!("{QUICK}max_body = \"2Mi\"\n")).await;
        let ear = Ear::deploy(&lab, "ear", &json!({})).await;
        let body = "0123456789abcdef".repeat(100_000);
        let id = call(&lab, "ear/flaky/1", &body, &[]).await;
        let heard = ear.until("/flaky", 2).await;
        assert!(heard.iter().all(|heard| heard.body == body.as_bytes()));
        until(&lab, &id, "done").await;
        lab.until_no_bodies().await;
        let refused = lab.ask_with(Method::POST, "/async-function/ear", &body.repeat(2), &[]).await.unwrap();
        assert_eq!(refused.status, 413);
        assert!(refused.text.contains("max_body"), "{}", refused.text);
        // One that is given up keeps it, until it is removed.
        let id = call(&lab, "ear/status/500", &body, &[]).await;
        let letter = until(&lab, &id, "dead").await["deadLetter"].as_u64().unwrap();
        assert!(lab.bodies().await > 0);
        lab.expect(202, Method::POST, &format!("/system/dead-letters/{letter}/replay"), "").await;
        let end = Instant::now() + PATIENCE;
        let letter = loop {
            let shown = status(&lab, &id).await;
            match shown["deadLetter"].as_u64().filter(|number| *number != letter) {
                Some(number) => break number,
                None => assert!(Instant::now() < end, "{shown}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert!(ear.heard("/status/500").iter().all(|heard| heard.body == body.as_bytes()));
        lab.expect(200, Method::DELETE, &format!("/system/dead-letters/{letter}"), "").await;
        lab.until_no_bodies().await;
    });
}

#[test]
fn a_named_queue_has_its_own_places() {
    inside("queue::a_named_queue_has_its_own_places", async |mut lab| {
        start(&mut lab, &format!("{QUICK}[stack.queues.narrow]\nmax_inflight = 1\n")).await;
        let narrow = Ear::deploy(&lab, "narrow", &json!({"com.openfaas.queue": "narrow"})).await;
        let wide = Ear::deploy(&lab, "wide", &json!({})).await;
        let bad = json!({"service": "bad", "image": "localhost/bare:latest", "annotations": {"com.openfaas.queue": "a.b"}});
        let refused = lab.expect(400, Method::POST, "/system/functions", &bad.to_string()).await;
        assert!(refused.text.contains("com.openfaas.queue"), "{}", refused.text);
        for _ in 0..10 {
            call(&lab, "narrow/slow/100", "", &[]).await;
            call(&lab, "wide/slow/300", "", &[]).await;
        }
        let id = call(&lab, "narrow/last", "", &[]).await;
        assert_eq!(until(&lab, &id, "done").await["queue"], "narrow");
        wide.until("/slow", 10).await;
        assert_eq!(narrow.most(), 1);
        assert!(wide.most() > 1);
    });
}

#[test]
fn without_nats_calls_are_refused_and_functions_answer() {
    inside("queue::without_nats_calls_are_refused_and_functions_answer", async |mut lab| {
        bare_image(&lab);
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        Ear::deploy(&lab, "ear", &json!({})).await;
        lab.expect(200, Method::GET, "/function/ear", "").await;
        let refused = lab.ask_with(Method::POST, "/async-function/ear", "", &[]).await.unwrap();
        assert_eq!((refused.status.as_u16(), refused.headers["retry-after"].as_bytes()), (503, &b"5"[..]));
        assert!(refused.text.starts_with("Error queuing request: NATS does not answer"), "{}", refused.text);
        lab.start_nats();
        lab.start_worker();
        lab.until_queues_answer().await;
        let id = call(&lab, "ear", "", &[]).await;
        until(&lab, &id, "done").await;
    });
}
