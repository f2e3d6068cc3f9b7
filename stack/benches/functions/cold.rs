//! From nothing running to the first answer.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;
use stack::containerd::Task;

use crate::figure::percentile;
use crate::floor::milliseconds;
use crate::lab::Lab;
use crate::{delete, deploy, deploy_with, scale};

/// How long a function may take until the next call finds an instance at hand.
const PATIENCE: Duration = Duration::from_secs(10);

/// A call of a function that is scaled to none and has an instance at hand, in milliseconds: median.
pub async fn stopped(lab: &Lab, rounds: usize) -> f64 {
    deploy(lab, "cold").await;
    let mut taken = Vec::new();
    for _ in 0..rounds {
        scale(lab, "cold", 0).await;
        until("an instance is prepared", async || prepared(lab, "cold").await).await;
        taken.push(call(lab, "cold").await);
    }
    delete(lab, "cold").await;
    percentile(taken, 50)
}

/// The same of one that nobody scaled: its label says that it may rest, and after how long.
pub async fn zeroed(lab: &Lab, rounds: usize) -> f64 {
    let labels = json!({"com.openfaas.scale.zero": "true", "com.openfaas.scale.zero-duration": "1s"});
    deploy_with(lab, "rests", json!({"labels": labels})).await;
    let mut taken = Vec::new();
    for _ in 0..rounds {
        until("an instance is prepared", async || prepared(lab, "rests").await).await;
        taken.push(call(lab, "rests").await);
    }
    delete(lab, "rests").await;
    percentile(taken, 50)
}

/// The same of one whose instance is frozen instead.
pub async fn frozen(lab: &Lab, rounds: usize) -> f64 {
    deploy_with(lab, "iced", json!({"labels": {"com.bothy.scale.zero-state": "frozen"}})).await;
    let mut taken = Vec::new();
    for _ in 0..rounds {
        scale(lab, "iced", 0).await;
        until("the instance is frozen", async || is_frozen("iced")).await;
        taken.push(call(lab, "iced").await);
    }
    delete(lab, "iced").await;
    percentile(taken, 50)
}

/// A deployment and the first call after it, in milliseconds: median.
pub async fn deployed(lab: &Lab, rounds: usize) -> f64 {
    let mut taken = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        deploy(lab, "new").await;
        lab.expect(200, Method::POST, "/function/new", "x").await;
        taken.push(milliseconds(began));
        delete(lab, "new").await;
    }
    percentile(taken, 50)
}

/// First calls at the worst moment: as soon as the function is scaled to none, when nothing is at hand yet.
pub struct AtOnce {
    /// How many failed.
    pub failed: f64,
    /// Median in milliseconds.
    pub taken: f64,
}

/// Makes so many of them.
pub async fn at_once(lab: &Lab, calls: usize) -> AtOnce {
    deploy(lab, "first").await;
    let (mut failed, mut taken) = (0, Vec::new());
    for _ in 0..calls {
        scale(lab, "first", 0).await;
        let began = Instant::now();
        match lab.ask(Method::POST, "/function/first", "x").await {
            Ok(answer) if answer.status == 200 && answer.text == "x" => taken.push(milliseconds(began)),
            other => {
                eprintln!("a first call failed: {:?}", other.map(|answer| (answer.status, answer.text)));
                failed += 1;
            }
        }
    }
    delete(lab, "first").await;
    AtOnce { failed: f64::from(failed), taken: percentile(taken, 50) }
}

/// One call, in milliseconds.
async fn call(lab: &Lab, name: &str) -> f64 {
    let began = Instant::now();
    lab.expect(200, Method::POST, &format!("/function/{name}"), "x").await;
    milliseconds(began)
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether all there is of a function is an instance that waits to begin.
async fn prepared(lab: &Lab, name: &str) -> bool {
    let containerd = lab.containerd();
    let containers = containerd.containers_of("openfaas-fn", Some(name)).await.unwrap();
    let [container] = &containers[..] else { return false };
    matches!(containerd.task("openfaas-fn", &container.id).await, Ok(Task::Created))
}

/// Whether one of its groups rests.
fn is_frozen(name: &str) -> bool {
    let groups = fs::read_dir("/sys/fs/cgroup/workload/openfaas-fn").into_iter().flatten().flatten();
    let of_it = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == name);
    let rests = |path: PathBuf| {
        let events = fs::read_to_string(path.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "frozen 1")
    };
    groups.map(|entry| entry.path()).filter(of_it).any(rests)
}
