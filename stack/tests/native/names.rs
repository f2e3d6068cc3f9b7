//! The names that functions find, and where these lead.

use hyper::Method;
use serde_json::json;

use super::layout::{Layer, assemble, process, programs};
use super::line::{Line, empty};
use super::namespaces::inside;
use super::peer::Inside;
use super::{PATIENCE, ready};
use crate::lab::Lab;

/// An image with bash, which has TCP and asks the C library for names.
const SHELL: &str = "localhost/shell:latest";

fn shell(lab: &Lab) {
    let mut layer = Layer::new();
    layer.add_program(std::path::Path::new("/bin/bash"), "bin/bash");
    let layers = [programs("here\n"), layer.finish()];
    let folder = lab.folder.join("images/shell");
    assemble(&folder, SHELL, "amd64", &process("app"), &[&layers[0], &layers[1]]);
}

/// Deploys a function that tells its environment, and who it is.
async fn teller(lab: &Lab, name: &str, namespace: &str) {
    let body = json!({"service": name, "namespace": namespace, "image": SHELL, "envProcess": "/usr/bin/env",
                      "envVars": {"WHO": format!("{name} in {namespace}")}});
    lab.expect(200, Method::POST, "/system/functions", &body.to_string()).await;
}

async fn delete(lab: &Lab, name: &str, namespace: &str) {
    let body = json!({"functionName": name, "namespace": namespace}).to_string();
    lab.expect(200, Method::DELETE, "/system/functions", &body).await;
}

/// What a function gets that asks `http://NAME:8080PATH` with that as host.
async fn get(lab: &Lab, name: &str, host: &str, path: &str) -> String {
    let script = format!(
        "exec 2>&1\nexec 3<>/dev/tcp/{name}/8080 || exit 0\nprintf '%s\\r\\n' 'GET {path} HTTP/1.1' 'Host: {host}' \
         'Connection: close' '' >&3\ncat <&3\n"
    );
    lab.expect(200, Method::POST, "/function/caller", &script).await.text
}

/// The watchdog takes the %-signs out of a path once, and nobody before it may.
const PATH: &str = "/a%252Fb//c/../d?x=1&y=%20";

#[track_caller]
fn told(answer: &str, who: &str) {
    for line in [format!("WHO={who}"), "Http_Path=/a%2Fb//c/../d".into(), "Http_Query=x=1&y=%20".into()] {
        assert!(answer.lines().any(|found| found == line), "{line}: {answer}");
    }
}

#[test]
fn functions_call_each_other_by_name() {
    inside("names::functions_call_each_other_by_name", async |mut lab| {
        shell(&lab);
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        let body = json!({"service": "caller", "image": SHELL, "envProcess": "/bin/bash"});
        lab.expect(200, Method::POST, "/system/functions", &body.to_string()).await;
        let namespace = json!({"name": "dev", "labels": {"openfaas": "1"}}).to_string();
        lab.expect(201, Method::POST, "/system/namespace/", &namespace).await;

        // They come after the caller, whose file is the same.
        let unknown = get(&lab, "teller", "teller", PATH).await;
        assert!(unknown.contains("teller: Temporary failure in name resolution"), "{unknown}");
        for (name, namespace) in [("teller", "openfaas-fn"), ("teller", "dev"), ("nats", "openfaas-fn")] {
            teller(&lab, name, namespace).await;
        }
        for (name, who) in [
            ("teller", "teller in openfaas-fn"),
            ("teller.openfaas-fn", "teller in openfaas-fn"),
            ("teller.openfaas-fn.svc.cluster.local", "teller in openfaas-fn"),
            ("teller.dev", "teller in dev"),
            ("teller.dev.svc.cluster.local", "teller in dev"),
            ("nats.openfaas-fn", "nats in openfaas-fn"),
        ] {
            for host in [name.to_owned(), format!("{name}:8080"), name.to_uppercase()] {
                told(&get(&lab, name, &host, PATH).await, who);
            }
        }
        // Nothing of the gateway's is in the way of a function's own paths.
        let answer = get(&lab, "teller", "teller", "/system/functions").await;
        assert!(answer.contains("Http_Path=/system/functions\n"), "{answer}");

        // The gateway under its own names and any other, as it was.
        for (name, host) in [
            ("gateway", "gateway:8080"),
            ("gateway.openfaas", "gateway.openfaas"),
            ("nats", "nats"),
            ("prometheus.openfaas", "prometheus"),
            ("10.62.0.1", "10.62.0.1:8080"),
            ("teller", "stranger.example.org"),
            ("teller", "teller.nowhere"),
        ] {
            let answer = get(&lab, name, host, &format!("/function/teller.dev{PATH}")).await;
            told(&answer, "teller in dev");
            let answer = get(&lab, name, host, "/nothing").await;
            assert!(
                answer.starts_with("HTTP/1.1 404") && answer.ends_with("404 page not found\n"),
                "{answer}"
            );
        }
        // For the machine itself a host says nothing.
        let mut line = Line::plain(lab.address(), 1).await.called("teller:8080");
        assert_eq!(line.get("/nothing").await.unwrap(), (404, "404 page not found\n".to_owned()));

        // In HTTP/2, where the host is no header.
        let caller = Inside::of(&lab.folder, "openfaas-fn.caller.0");
        for version in [1, 2] {
            let stream = caller.connect("10.62.0.1:8080").unwrap();
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let mut line = Line::over(stream, version).await.called("teller.dev:8080");
            let (status, answer) = line.get(PATH).await.unwrap();
            assert_eq!(status, 200, "{answer}");
            told(&answer, "teller in dev");
            let answer = line.send(Method::TRACE, "/", &[], empty()).await.unwrap();
            assert_eq!(answer.status(), 405);
        }
        come_and_go(&mut lab).await;
    });
}

/// The file of an instance that runs is right after all that can happen to others.
async fn come_and_go(lab: &mut Lab) {
    let hosts =
        async |lab: &Lab| lab.expect(200, Method::POST, "/function/caller", "cat /etc/hosts").await.text;
    let names = async |lab: &Lab| {
        let text = hosts(lab).await;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.split(' ').nth(1).map(str::to_owned)).collect::<Vec<_>>()
    };
    let services = ["localhost", "localhost", "gateway", "nats", "prometheus"];
    let all = ["caller", "teller", "teller.dev", "nats.openfaas-fn"];
    assert_eq!(names(lab).await, [&services[..], &all].concat());
    delete(lab, "teller", "openfaas-fn").await;
    assert_eq!(names(lab).await, [&services[..], &["caller", "teller.dev", "nats.openfaas-fn"]].concat());
    let gone = get(lab, "teller", "teller", PATH).await;
    assert!(gone.contains("teller: Temporary failure in name resolution"), "{gone}");
    // Who knows the address all the same calls nobody.
    let gone = get(lab, "gateway", "teller", "/nothing").await;
    assert!(gone.starts_with("HTTP/1.1 404"), "{gone}");

    // What is scaled or deployed anew stays where it is.
    lab.expect(200, Method::POST, "/system/scale-function/nats", r#"{"replicas":0}"#).await;
    told(&get(lab, "nats.openfaas-fn", "nats.openfaas-fn", PATH).await, "nats in openfaas-fn");

    // The next gateway goes on with the same file.
    lab.kill_gateway();
    lab.start_gateway();
    lab.until("/healthz", "", PATIENCE).await;
    let mut found = names(lab).await;
    found.sort();
    let mut wanted = [&services[..], &["caller", "teller.dev", "nats.openfaas-fn"]].concat();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    teller(lab, "teller", "openfaas-fn").await;
    told(&get(lab, "teller", "teller", PATH).await, "teller in openfaas-fn");
}
