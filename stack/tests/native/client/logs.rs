//! `logs`, with its flags `--tail`, `--lines`, `--since`, `--since-time`, `--namespace`. (`--instance` and `--name` are
//! about what it prints.)

use std::time::Instant;

use hyper::Method;
use serde_json::{Value, json};

use super::{deploy, invoke, one_of, remove, send};
use crate::lab::Lab;
use crate::logs::{Follower, start_journal};
use crate::namespaces::inside;
use crate::{IMAGE, PATIENCE, image, ready};

#[test]
fn logs() {
    inside("client::logs::logs", async |mut lab| {
        image(&lab, "one", "here\n");
        start_journal(&mut lab);
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        let body = json!({"service": "sh", "image": IMAGE, "envProcess": "/bin/sh", "labels": {}, "annotations": {}});
        assert_eq!(deploy(&lab, &body).await, Method::POST);
        say(&lab, "one").await;
        say(&lab, "two").await;
        let all = "follow=false&name=sh&tail=-1";
        until_said(&lab, all, "stderr: two", 2).await;
        let said = told(&lab, all).await;
        let last = &said[said.len() - 1..];

        // `--lines 1`; `--since 1h`, as it is where the client is; `--since-time` of the future.
        assert_eq!(told(&lab, "follow=false&name=sh&tail=1").await, last);
        let hour = stack::timestamp::rfc3339_micros(stack::timestamp::now_micros() - 3_600_000_000);
        let hour = hour.replace(':', "%3A");
        assert_eq!(told(&lab, &format!("follow=false&name=sh&since={hour}&tail=-1")).await, said);
        let zone = "follow=false&name=sh&since=2020-01-01T05%3A30%3A00%2B05%3A30&tail=-1";
        assert_eq!(told(&lab, zone).await, said);
        let future = "follow=false&name=sh&since=2999-01-01T00%3A00%3A00Z&tail=-1";
        assert_eq!(told(&lab, future).await, Vec::<Value>::new());
        // Of nobody there is nothing to tell, which is no failure.
        for query in ["follow=false&name=absent&tail=-1", "follow=false&name=sh&namespace=dev&tail=-1"] {
            assert_eq!(told(&lab, query).await, Vec::<Value>::new(), "{query}");
        }
        // Without a flag it follows, after what there is.
        let mut follower = Follower::start(&lab, "follow=true&name=sh&tail=1").await;
        let first = follower.next().await;
        assert_eq!(first.as_deref(), last[0]["text"].as_str());
        say(&lab, "three").await;
        let next = [follower.next().await.unwrap(), follower.next().await.unwrap()];
        assert!(next.iter().any(|text| text == "stderr: three"), "{next:?}");
        drop(follower);
        remove(&lab, "sh", "").await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

/// Has the function write that.
async fn say(lab: &Lab, word: &str) {
    let script = format!("echo {word} >&2");
    one_of(invoke(lab, Method::POST, "sh.openfaas-fn", &script, &[]).await, &[200]);
}

/// The messages, each with all that the client prints.
async fn told(lab: &Lab, query: &str) -> Vec<Value> {
    let answer = send(lab, Method::GET, &format!("/system/logs?{query}"), &Value::Null).await;
    let messages: Vec<Value> =
        one_of(answer, &[200]).text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for message in &messages {
        for (field, value) in [("name", "sh"), ("namespace", "openfaas-fn"), ("instance", "sh.0")] {
            assert_eq!(message[field], value, "{message}");
        }
        let time = message["timestamp"].as_str().unwrap_or_default();
        assert!(stack::timestamp::parse(time).is_some() && message["text"].is_string(), "{message}");
    }
    messages
}

/// Waits until the journal has that, and as many of the watchdog's own lines about calls.
async fn until_said(lab: &Lab, query: &str, text: &str, calls: usize) {
    let end = Instant::now() + PATIENCE;
    loop {
        let said = told(lab, query).await;
        let texts: Vec<_> = said.iter().filter_map(|message| message["text"].as_str()).collect();
        let told = texts.iter().filter(|text| text.starts_with("watchdog: POST ")).count();
        if texts.contains(&text) && told == calls {
            return;
        }
        assert!(Instant::now() < end, "{text} and {calls} calls are not in {texts:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
