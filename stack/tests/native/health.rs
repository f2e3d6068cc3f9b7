//! Functions that say by annotations how they are asked whether they are ready and well.

use std::fs;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;

use super::namespaces::inside;
use super::{IMAGE, PATIENCE, image, ready};
use crate::lab::Lab;

/// What the function's answer is made of: where it is not, calls fail.
const FILE: &str = "tmp/well";

/// The only instance's process, once it is another than `former`. (A child of it that is about to become a program looks
/// like it for a moment.)
async fn process(lab: &Lab, former: Option<i32>) -> i32 {
    let end = Instant::now() + PATIENCE;
    loop {
        if let [pid] = lab.processes("/watchdog")[..]
            && Some(pid) != former
        {
            return pid;
        }
        assert!(Instant::now() < end, "no other process than {former:?}: {:?}", lab.processes("/watchdog"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn well(pid: i32) {
    fs::write(format!("/proc/{pid}/root/{FILE}"), "well\n").unwrap();
}

fn unwell(pid: i32) {
    fs::remove_file(format!("/proc/{pid}/root/{FILE}")).unwrap();
}

async fn start(lab: &mut Lab) {
    image(lab, "one", "here\n");
    lab.start_containerd();
    lab.start_gateway();
    ready(lab).await;
}

fn deployment(annotations: &serde_json::Value) -> String {
    json!({"service": "f", "image": IMAGE, "envProcess": format!("/bin/cat /{FILE}"), "annotations": annotations})
        .to_string()
}

#[test]
fn who_is_not_ready_gets_no_calls() {
    inside("health::who_is_not_ready_gets_no_calls", async |mut lab| {
        start(&mut lab).await;
        let annotations = json!({
            "com.openfaas.ready.http.path": "/", "com.openfaas.ready.http.periodSeconds": "1",
            "com.openfaas.ready.http.failureThreshold": "2", "com.openfaas.ready.http.successThreshold": "3",
        });
        let body = deployment(&annotations);
        let deploying = lab.expect(200, Method::POST, "/system/functions", &body);
        let began = Instant::now();
        let beginning = async {
            let pid = process(&lab, None).await;
            well(pid);
            pid
        };
        let (_, pid) = tokio::join!(deploying, beginning);
        assert!(began.elapsed() >= Duration::from_secs(2), "three times, a second apart");
        assert_eq!(lab.available("f").await, 1);
        for _ in 0..2 {
            unwell(pid);
            lab.until_available("f", 0).await;
            // A call does not go in: it would have failed there.
            let answer = tokio::spawn({
                let address = lab.address();
                async move { crate::lab::ask(address, Method::GET, "/function/f", "", &[]).await }
            });
            tokio::time::sleep(Duration::from_millis(1500)).await;
            well(pid);
            lab.until_available("f", 1).await;
            let answer = answer.await.unwrap().unwrap();
            assert!(
                (answer.status.as_u16(), answer.text.as_str()) == (200, "well\n")
                    || answer.status.as_u16() == 503,
                "{} {}",
                answer.status,
                answer.text
            );
            assert_eq!(lab.expect(200, Method::GET, "/function/f", "").await.text, "well\n");
        }
        // It was no reason to start another.
        assert_eq!(process(&lab, None).await, pid);
    });
}

#[test]
fn who_is_not_well_is_replaced() {
    inside("health::who_is_not_well_is_replaced", async |mut lab| {
        start(&mut lab).await;
        let annotations = json!({
            "com.openfaas.health.http.path": "/", "com.openfaas.health.http.periodSeconds": "1",
            "com.openfaas.health.http.failureThreshold": "2", "com.openfaas.health.http.initialDelaySeconds": "2",
        });
        lab.expect(200, Method::POST, "/system/functions", &deployment(&annotations)).await;
        let first = process(&lab, None).await;
        well(first);
        // Longer than a sick one lives.
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(process(&lab, None).await, first);
        unwell(first);
        lab.until_ended(first, PATIENCE).await;
        let second = process(&lab, Some(first)).await;
        well(second);
        lab.until("/function/f", "well\n", PATIENCE).await;
        let metrics = crate::lab::ask("127.0.0.1:8082".parse().unwrap(), Method::GET, "/metrics", "", &[]);
        let metrics = metrics.await.unwrap().text;
        let counted = metrics.lines().any(|line| {
            line.contains("f.openfaas-fn") && line.contains("reason=\"unwell\"") && !line.ends_with(" 0")
        });
        assert!(counted, "{metrics}");
        let log = fs::read_to_string(lab.folder.join("gateway.log")).unwrap();
        assert!(log.contains("/ says 500"), "nobody is told why: {log}");
    });
}
