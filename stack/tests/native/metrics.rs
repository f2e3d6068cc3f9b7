//! The second listener.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::lab::Lab;
use crate::namespaces::inside;
use crate::{IMAGE, PATIENCE, deployment, image, ready};

const ADDRESS: &str = "127.0.0.1:8082";

/// A request as it is, and the answer as it is.
async fn ask(method: &str, path: &str) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect(ADDRESS).await?;
    let request = format!("{method} {path} HTTP/1.1\r\nhost: bothy\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The samples, by name and labels.
async fn samples() -> BTreeMap<String, f64> {
    let answer = ask("GET", "/metrics").await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// Waits until a sample has a value: a call is counted when its last byte is on its way.
async fn until(name: &str, value: f64) -> BTreeMap<String, f64> {
    let end = Instant::now() + PATIENCE;
    loop {
        let samples = samples().await;
        if samples.get(name) == Some(&value) {
            return samples;
        }
        assert!(Instant::now() < end, "{name} is {:?}: {samples:?}", samples.get(name));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_there(lab: &Lab) {
    ready(lab).await;
    let end = Instant::now() + PATIENCE;
    while !ask("GET", "/healthz").await.is_ok_and(|answer| answer.ends_with("\r\n\r\nOK")) {
        assert!(Instant::now() < end, "nobody answers at {ADDRESS}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn calls_restarts_and_requests_are_counted() {
    inside("metrics::calls_restarts_and_requests_are_counted", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        // Somebody else's port: the gateway works all the same, and takes it when it is free.
        let taken = TcpListener::bind("0.0.0.0:8082").await.unwrap();
        lab.start_gateway();
        ready(&lab).await;
        drop(taken);
        until_there(&lab).await;
        // Somebody who says nothing does not stay for ever.
        let mut silent = TcpStream::connect(ADDRESS).await.unwrap();
        assert!(ask("POST", "/healthz").await.unwrap().starts_with("HTTP/1.1 405"));
        assert!(ask("GET", "/system/functions").await.unwrap().starts_with("HTTP/1.1 404"));
        assert!(!samples().await.keys().any(|name| name.contains("function_name")));

        lab.expect(200, Method::POST, "/system/functions", &deployment("f", IMAGE)).await;
        let fails = json!({"service": "fails", "image": IMAGE, "envProcess": "/bin/cat /nothing",
                           "labels": {"com.openfaas.scale.min": "2"}});
        lab.expect(200, Method::POST, "/system/functions", &fails.to_string()).await;
        let fresh = samples().await;
        let one = |name: &str| fresh[&format!("{name}{{function_name=\"f.openfaas-fn\"}}")];
        assert_eq!(one("gateway_function_invocation_started"), 0.0);
        assert_eq!((one("gateway_service_count"), one("gateway_service_ready_count")), (1.0, 1.0));
        assert_eq!(one("gateway_service_min"), 1.0);
        for name in ["gateway_service_min", "gateway_service_count", "gateway_service_ready_count"] {
            assert_eq!(fresh[&format!("{name}{{function_name=\"fails.openfaas-fn\"}}")], 2.0, "{name}");
        }

        for _ in 0..3 {
            lab.expect(200, Method::POST, "/function/f", "x").await;
        }
        lab.expect(500, Method::POST, "/function/fails.openfaas-fn", "x").await;
        lab.expect(404, Method::POST, "/function/nobody", "x").await;
        let of_f = "{function_name=\"f.openfaas-fn\",code=\"200\"}";
        let counted = until(&format!("gateway_function_invocation_total{of_f}"), 3.0).await;
        let one = |name: &str| counted[&format!("{name}{{function_name=\"f.openfaas-fn\"}}")];
        assert_eq!(one("gateway_function_invocation_started"), 3.0);
        assert_eq!(one("gateway_function_invocation_inflight"), 0.0);
        assert_eq!(counted[&format!("gateway_functions_seconds_count{of_f}")], 3.0);
        let all =
            "gateway_functions_seconds_bucket{function_name=\"f.openfaas-fn\",code=\"200\",le=\"+Inf\"}";
        assert_eq!(counted[all], 3.0);
        assert!(counted[&format!("gateway_functions_seconds_sum{of_f}")] > 0.0);
        let of_fails = "gateway_function_invocation_total{function_name=\"fails.openfaas-fn\",code=\"500\"}";
        until(of_fails, 1.0).await;
        assert!(!counted.keys().any(|name| name.contains("nobody")), "{counted:?}");
        assert_eq!(
            counted["http_requests_total{method=\"POST\",path=\"/system/functions\",status=\"200\"}"],
            2.0
        );
        assert!(counted["process_resident_memory_bytes"] > 1e6);

        // Its process is killed: it was the first to be started.
        let restarts = |reason: &str| {
            format!("bothy_function_restarts_total{{function_name=\"f.openfaas-fn\",reason=\"{reason}\"}}")
        };
        assert_eq!(counted[&restarts("signal")], 0.0);
        let of = |lab: &Lab| *lab.processes("/watchdog").iter().min().unwrap();
        let end = |pid, signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
        end(of(&lab), nix::sys::signal::Signal::SIGKILL);
        let counted = until(&restarts("signal"), 1.0).await;
        assert_eq!(counted[&restarts("exit")], 0.0);
        let exits = |reason: &str, status: u32| {
            format!(
                "bothy_function_exits_total{{function_name=\"f.openfaas-fn\",reason=\"{reason}\",status=\"{status}\"}}"
            )
        };
        assert_eq!(counted[&exits("signal", 137)], 1.0);
        // A version that ends before it is ready is no restart: it was never let in.
        let broken =
            json!({"service": "f", "image": IMAGE, "envProcess": "/bin/cat", "envVars": {"mode": "none"}});
        lab.until("/function/f", "here\n", PATIENCE).await;
        lab.expect(400, Method::PUT, "/system/functions", &broken.to_string()).await;
        let counted = until(&exits("exit", 2), 1.0).await;
        assert_eq!((counted[&restarts("exit")], counted[&restarts("failed")]), (0.0, 0.0));

        // What is removed leaves no series.
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
        let left = samples().await;
        assert!(!left.keys().any(|name| name.contains("\"f.openfaas-fn\"")), "{left:?}");
        assert!(left.keys().any(|name| name.contains("\"fails.openfaas-fn\"")));
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"fails"}"#).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
        let ended = tokio::time::timeout(PATIENCE, silent.read(&mut [0])).await;
        assert_eq!(ended.expect("a silent client stays").unwrap(), 0);
        let log = lab.gateway_log();
        assert!(log.contains("no metrics: listen on 0.0.0.0:8082"), "{log}");
    });
}
