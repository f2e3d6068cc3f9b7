//! Everything is killed under load; the calls that failed are counted, and told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::lab::{Lab, SHIM, ask};
use crate::namespaces::inside;
use crate::{IMAGE, PATIENCE, image, ready};

/// Clients that call without a pause.
const CLIENTS: usize = 4;

/// Calls that go on until told.
struct Load {
    over: Arc<AtomicBool>,
    failed: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
}

impl Load {
    fn start() -> Self {
        let load = Self { over: Arc::default(), failed: Arc::default(), answered: Arc::default() };
        for _ in 0..CLIENTS {
            let (over, failed, answered) = (load.over.clone(), load.failed.clone(), load.answered.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let address = "127.0.0.1:8080".parse().unwrap();
                    match ask(address, Method::POST, "/function/f", "x", &[]).await {
                        Ok(answer) if answer.status == 200 => answered.fetch_add(1, Ordering::Relaxed),
                        // Not a thousand times a second while nobody listens.
                        _ => {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                            failed.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            });
        }
        load
    }

    /// Does an act, waits until calls are answered for a while, and gives how many failed since.
    async fn during(&self, what: &str, act: impl AsyncFnOnce()) -> usize {
        let (failed, answered) = (self.failed.load(Ordering::Relaxed), self.answered.load(Ordering::Relaxed));
        act().await;
        let end = std::time::Instant::now() + PATIENCE;
        let mut seen = self.failed.load(Ordering::Relaxed);
        let mut quiet = self.answered.load(Ordering::Relaxed);
        // Until a hundred calls in a row were answered.
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = self.failed.load(Ordering::Relaxed);
            if now != seen {
                (seen, quiet) = (now, self.answered.load(Ordering::Relaxed));
            }
            if self.answered.load(Ordering::Relaxed) > quiet + 100 {
                break;
            }
            assert!(std::time::Instant::now() < end, "{what}: calls still fail after {PATIENCE:?}");
        }
        let (failed, answered) = (seen - failed, self.answered.load(Ordering::Relaxed) - answered);
        println!("{what}: {failed} calls failed, {answered} were answered");
        failed
    }
}

fn end(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

async fn three(lab: &Lab) -> Vec<i32> {
    let limit = std::time::Instant::now() + PATIENCE;
    loop {
        let processes = lab.processes("/watchdog");
        let described = lab.expect(200, Method::GET, "/system/function/f", "").await.json();
        if processes.len() == 3 && described["availableReplicas"] == 3 {
            return processes;
        }
        assert!(std::time::Instant::now() < limit, "three instances should run: {processes:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn only_calls_inside_what_is_killed_fail() {
    inside("faults::only_calls_inside_what_is_killed_fail", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        let labels = json!({"com.openfaas.scale.min": "3"});
        let body = json!({"service": "f", "image": IMAGE, "labels": labels}).to_string();
        lab.expect(200, Method::POST, "/system/functions", &body).await;
        let load = Load::start();
        for round in 0..3 {
            let victim = three(&lab).await[round % 3];
            let failed = load.during("function killed", async || end(victim)).await;
            assert!(failed <= CLIENTS, "more calls failed than were inside");
            let parent = crate::lab::parent(three(&lab).await[0]).unwrap();
            assert!(lab.processes(SHIM).contains(&parent));
            let failed = load.during("shim killed", async || end(parent)).await;
            assert!(failed <= CLIENTS, "more calls failed than were inside");
        }
        let before = three(&lab).await;
        let failed = load.during("containerd killed", async || lab.kill_containerd()).await;
        assert_eq!(failed, 0);
        let failed = load.during("containerd started", async || lab.start_containerd()).await;
        assert_eq!(failed, 0);
        ready(&lab).await;
        // Here nobody holds the gateway's socket meanwhile, so calls are refused until it is back.
        load.during("gateway killed", async || {
            lab.kill_gateway();
            lab.start_gateway();
        })
        .await;
        assert_eq!(three(&lab).await, before);
        let update = body.replace("\"labels\"", "\"envVars\":{\"A\":\"b\"},\"labels\"");
        let failed = load
            .during("update", async || {
                lab.expect(200, Method::PUT, "/system/functions", &update).await;
            })
            .await;
        assert_eq!(failed, 0);
        for replicas in [1, 3] {
            let body = json!({"replicas": replicas}).to_string();
            let failed = load
                .during("scaling", async || {
                    lab.expect(200, Method::POST, "/system/scale-function/f", &body).await;
                })
                .await;
            assert_eq!(failed, 0);
        }
        load.over.store(true, Ordering::Relaxed);
    });
}
