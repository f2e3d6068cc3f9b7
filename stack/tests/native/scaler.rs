//! Functions that are scaled by their load, and to none; and many calls of one that rests.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use hyper::Method;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::crowd::{Crowd, knock, metric, until_metric};
use crate::lab::{self, Lab};
use crate::namespaces::inside;
use crate::{IMAGE, PATIENCE, image, ready};

/// A function that sleeps as long as its body says.
fn deployment(name: &str, labels: &Value) -> String {
    let process = "/bin/sh -c";
    let variables = json!({"fprocess": "/bin/sh", "write_timeout": "60s"});
    json!({"service": name, "image": IMAGE, "envProcess": process, "envVars": variables, "labels": labels})
        .to_string()
}

fn zero(after: &str) -> Value {
    json!({"com.openfaas.scale.zero": "true", "com.openfaas.scale.zero-duration": after})
}

async fn deploy(lab: &Lab, name: &str, labels: &Value) {
    lab.expect(200, Method::POST, "/system/functions", &deployment(name, labels)).await;
}

async fn replicas(lab: &Lab, name: &str) -> u64 {
    let shown = lab.expect(200, Method::GET, &format!("/system/function/{name}"), "").await.json();
    shown["replicas"].as_u64().unwrap_or(0)
}

/// Waits until so many should run; gives how long that took.
async fn until_replicas(lab: &Lab, name: &str, wanted: u64) -> Duration {
    let began = Instant::now();
    loop {
        let replicas = replicas(lab, name).await;
        if replicas == wanted {
            return began.elapsed();
        }
        assert!(began.elapsed() < PATIENCE * 2, "{name}: {replicas} should run, not {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A call of its own that lasts so long.
fn call(lab: &Lab, name: &str, seconds: u32) -> tokio::task::JoinHandle<Result<lab::Answer, String>> {
    let (address, path) = (lab.address(), format!("/function/{name}"));
    tokio::spawn(async move {
        let script = format!("sleep {seconds}; echo done");
        lab::ask(address, Method::POST, &path, &script, &[]).await
    })
}

/// What is on the disk of it.
fn stored(lab: &Lab, name: &str) -> u64 {
    let path = lab.folder.join(format!("state/functions/openfaas-fn/{name}.json"));
    let document: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    document["replicas"].as_u64().unwrap()
}

#[test]
fn who_is_not_called_rests_and_who_is_does_not() {
    inside("scaler::who_is_not_called_rests_and_who_is_does_not", async |mut lab| {
        image(&lab, "one", "here\n");
        let settings = ["--inactivity-duration", "4s", "--reconcile-interval", "500ms"];
        lab.arguments = settings.map(str::to_owned).to_vec();
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        for (labels, reason) in [
            (zero("soon"), "label com.openfaas.scale.zero-duration: \\\"soon\\\" is no duration"),
            (json!({"com.openfaas.scale.target": "much"}), "label com.openfaas.scale.target: \\\"much\\\""),
        ] {
            let refused = lab.expect(400, Method::POST, "/system/functions", &deployment("f", &labels)).await;
            assert!(refused.text.contains(&reason.replace("\\\"", "\"")), "{}", refused.text);
        }
        // One with a time of its own, one with the machine's, and one that does not ask for it.
        deploy(&lab, "own", &zero("2s")).await;
        deploy(&lab, "common", &json!({"com.openfaas.scale.zero": "1"})).await;
        deploy(&lab, "stays", &json!({"com.openfaas.scale.zero-duration": "1s"})).await;

        // A call that lasts keeps it up, and then it has its time again.
        let (began, long) = (Instant::now(), call(&lab, "own", 8));
        until_replicas(&lab, "common", 0).await;
        assert!(began.elapsed() > Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(long.await.unwrap().unwrap().text, "done\n");
        until_replicas(&lab, "own", 0).await;
        assert!(began.elapsed() >= Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(replicas(&lab, "stays").await, 1);

        // What rests stays so, whoever ends, and wakes.
        let end = Instant::now() + PATIENCE;
        while stored(&lab, "own") != 0 || stored(&lab, "common") != 0 {
            assert!(Instant::now() < end, "that they rest is not on the disk");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        lab.kill_gateway();
        lab.kill_containerd();
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        assert_eq!((replicas(&lab, "own").await, replicas(&lab, "common").await), (0, 0));
        assert_eq!(call(&lab, "common", 0).await.unwrap().unwrap().text, "done\n");
        assert_eq!(replicas(&lab, "common").await, 1);
        until_replicas(&lab, "common", 0).await;
        assert!(lab.gateway_log().contains("common.openfaas-fn: nobody has called it for 4 s, it rests"));
        for name in ["own", "common", "stays"] {
            let body = json!({"functionName": name}).to_string();
            lab.expect(200, Method::DELETE, "/system/functions", &body).await;
        }
        // What containerd was removing when it was killed has a dot before its name, and nobody looks at it again.
        let is_hidden = |left: &String| left.rsplit('/').next().is_some_and(|name| name.starts_with('.'));
        let left = lab.leftovers().await.into_iter().filter(|left| !is_hidden(left));
        assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new());
    });
}

#[test]
fn the_next_gateway_takes_nobody_for_idle() {
    inside("scaler::the_next_gateway_takes_nobody_for_idle", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.arguments = ["--reconcile-interval", "100ms"].map(str::to_owned).to_vec();
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        let after = Duration::from_secs(6);
        deploy(&lab, "f", &zero("6s")).await;
        let began = Instant::now();
        // Longer in all than it may be idle, but none of them that long.
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(3)).await;
            lab.kill_gateway();
            lab.start_gateway();
            ready(&lab).await;
        }
        let last = Instant::now();
        assert!(began.elapsed() > after);
        let running = replicas(&lab, "f").await;
        // A host that was away for so long has shown nothing.
        assert!(running == 1 || last.elapsed() > after, "{running}");
        until_replicas(&lab, "f", 0).await;
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
    });
}

#[test]
fn ten_thousand_calls_start_it_once() {
    inside("scaler::ten_thousand_calls_start_it_once", async |mut lab| {
        const CALLS: usize = 10_000;
        image(&lab, "one", "here\n");
        // As root: more than the host may have given us.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let most = most.max(2 * CALLS as u64);
        setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
        // Nothing is prepared: it is a start from nothing.
        lab.arguments = ["--prepared", "0"].map(str::to_owned).to_vec();
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        let variables = json!({"mode": "static", "static_path": "/", "max_inflight": "100"});
        let body = json!({"service": "f", "image": IMAGE, "envVars": variables});
        lab.expect(200, Method::POST, "/system/functions", &body.to_string()).await;
        lab.expect(200, Method::POST, "/system/scale-function/f", r#"{"replicas":0}"#).await;
        assert_eq!(lab.processes("/watchdog"), Vec::<i32>::new());
        let began = Instant::now();
        let mut calls = JoinSet::new();
        for _ in 0..CALLS {
            let address = lab.address();
            calls.spawn(async move { knock(address, "/function/f/answer", "").await });
        }
        let (mut counts, mut broken) = (BTreeMap::<(u16, bool), usize>::new(), Vec::new());
        while let Some(call) = calls.join_next().await {
            match call.unwrap() {
                Ok(answer) => *counts.entry(answer).or_default() += 1,
                Err(error) => broken.push(error),
            }
        }
        println!("{CALLS} calls of a function that rests: {counts:?} in {:.1?}", began.elapsed());
        assert!(broken.is_empty(), "{} broke: {:?}", broken.len(), broken.first());
        assert!(counts.keys().all(|answer| matches!(answer, (200, _) | (429 | 503, true))), "{counts:?}");
        assert!(counts.contains_key(&(200, false)), "{counts:?}");
        let log = lab.gateway_log();
        let starts = log.lines().filter(|line| line.contains("f.openfaas-fn is ready at")).count();
        // Once for the deployment, and once for all of them.
        assert_eq!(starts, 2, "{log}");
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

#[test]
fn who_leaves_takes_no_other_call_along() {
    inside("scaler::who_leaves_takes_no_other_call_along", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.arguments = ["--prepared", "0"].map(str::to_owned).to_vec();
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        deploy(&lab, "f", &json!({})).await;
        lab.expect(200, Method::POST, "/system/scale-function/f", r#"{"replicas":0}"#).await;
        // Nothing can be started until containerd is back: all of them wait.
        lab.kill_containerd();
        let calls: Vec<_> = (0..20).map(|_| call(&lab, "f", 0)).collect();
        let waiting = "bothy_function_calls_waiting{function_name=\"f.openfaas-fn\"}";
        until_metric(&lab, waiting, 20.0).await;
        let mut staying = Vec::new();
        for (number, call) in (0..).zip(calls) {
            // The first of them woke it.
            match number % 2 {
                0 => call.abort(),
                _ => staying.push(call),
            }
        }
        until_metric(&lab, waiting, 10.0).await;
        lab.start_containerd();
        for call in staying {
            assert_eq!(call.await.unwrap().unwrap().text, "done\n");
        }
        until_metric(&lab, waiting, 0.0).await;

        // There are places for 256; who finds none hears when to come again, and who waits stays.
        lab.expect(200, Method::POST, "/system/scale-function/f", r#"{"replicas":0}"#).await;
        lab.kill_containerd();
        let mut calls = JoinSet::new();
        for _ in 0..300 {
            let address = lab.address();
            calls.spawn(async move { knock(address, "/function/f", "echo").await });
        }
        for _ in 0..300 - 256 {
            assert_eq!(calls.join_next().await.unwrap().unwrap(), Ok((503, true)));
        }
        until_metric(&lab, waiting, 256.0).await;
        let refused = lab.expect(503, Method::GET, "/function/f", "").await;
        assert_eq!(refused.text, "Too many calls wait for: f.");
        assert_eq!(
            (&refused.headers["retry-after"], &refused.headers["x-openfaas-internal"]),
            (&hyper::header::HeaderValue::from(1), &hyper::header::HeaderValue::from_static("proxy"))
        );
        lab.start_containerd();
        while let Some(call) = calls.join_next().await {
            assert_eq!(call.unwrap(), Ok((200, false)));
        }
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

#[test]
fn instances_follow_the_load() {
    inside("scaler::instances_follow_the_load", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        let labels = json!({"com.openfaas.scale.type": "capacity", "com.openfaas.scale.target": "2",
                            "com.openfaas.scale.target-proportion": "1", "com.openfaas.scale.max": "3",
                            "com.openfaas.scale.down.window": "6s"});
        deploy(&lab, "f", &labels).await;
        let (target, wished) = (
            "gateway_service_target_load{function_name=\"f.openfaas-fn\",scaling_type=\"capacity\"}",
            "bothy_function_instances_wished{function_name=\"f.openfaas-fn\"}",
        );
        until_metric(&lab, target, 2.0).await;
        until_metric(&lab, wished, 1.0).await;

        // Eight are here at any time, which would be four instances.
        let crowd = Crowd::new(&lab, 8);
        until_replicas(&lab, "f", 3).await;
        lab.until_available("f", 3).await;
        until_metric(&lab, wished, 3.0).await;
        drop(crowd);
        let taken = until_replicas(&lab, "f", 1).await;
        assert!(taken > Duration::from_secs(3), "{taken:?}");
        lab.until_available("f", 1).await;
        let log = lab.gateway_log();
        let changes = log.lines().filter(|line| line.contains("its load asks for")).count();
        assert!((2..=6).contains(&changes), "{changes} changes: {log}");
        let end = Instant::now() + PATIENCE;
        while stored(&lab, "f") != 1 {
            assert!(Instant::now() < end, "the number is not on the disk");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }

        // What somebody asks for stays, over a restart, until the load asks for more; which it cannot here.
        lab.expect(200, Method::POST, "/system/scale-function/f", r#"{"replicas":3}"#).await;
        lab.until_available("f", 3).await;
        lab.kill_gateway();
        lab.start_gateway();
        ready(&lab).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(replicas(&lab, "f").await, 3);
        lab.expect(200, Method::POST, "/system/scale-function/f", r#"{"replicas":1}"#).await;

        // By calls in a second.
        let labels = json!({"com.openfaas.scale.type": "rps", "com.openfaas.scale.target": "4",
                            "com.openfaas.scale.max": "2", "com.openfaas.scale.down.window": "off"});
        lab.expect(200, Method::PUT, "/system/functions", &deployment("f", &labels)).await;
        let steady = Crowd::steady(&lab, Duration::from_millis(50));
        until_replicas(&lab, "f", 2).await;
        lab.until_available("f", 2).await;
        drop(steady);
        until_replicas(&lab, "f", 1).await;

        // A load of another kind is nobody's mistake.
        let labels = json!({"com.openfaas.scale.type": "queue", "com.openfaas.scale.target": "10"});
        lab.expect(200, Method::PUT, "/system/functions", &deployment("f", &labels)).await;
        let end = Instant::now() + PATIENCE;
        let told =
            || lab.gateway_log().matches("com.openfaas.scale.type \"queue\" is not measured here").count();
        while told() == 0 {
            assert!(Instant::now() < end, "{}", lab.gateway_log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!((told(), metric(wished).await), (1, None));
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

#[test]
fn memory_is_a_ceiling_for_the_load_alone() {
    inside("scaler::memory_is_a_ceiling_for_the_load_alone", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        // Without control groups what it asks for is all that is known: more than any machine has.
        let labels = json!({"com.openfaas.scale.type": "capacity", "com.openfaas.scale.target": "1",
                            "com.openfaas.scale.max": "3"});
        let mut body: Value = serde_json::from_str(&deployment("f", &labels)).unwrap();
        body["requests"] = json!({"memory": "1000Ti"});
        lab.expect(200, Method::POST, "/system/functions", &body.to_string()).await;
        let crowd = Crowd::new(&lab, 4);
        let told = " instances, and there is memory for 1 (one takes ";
        let end = Instant::now() + PATIENCE;
        while !lab.gateway_log().contains(told) {
            assert!(Instant::now() < end, "{}", lab.gateway_log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        until_metric(&lab, "bothy_function_instances_wished{function_name=\"f.openfaas-fn\"}", 3.0).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!((replicas(&lab, "f").await, lab.gateway_log().matches(told).count()), (1, 1));
        // Who asks for more gets it.
        lab.expect(200, Method::POST, "/system/scale-function/f", r#"{"replicas":2}"#).await;
        lab.until_available("f", 2).await;
        drop(crowd);
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}
