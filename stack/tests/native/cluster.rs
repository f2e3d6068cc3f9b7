//! Several workers on a cluster of NATS servers, as several appliances have it.

use std::collections::BTreeSet;
use std::process::Child;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;

use super::ear::{Ear, counts};
use super::stand_in::bare_image;
use super::{PATIENCE, ready};
use crate::lab::Lab;
use crate::namespaces::inside;

/// Ports of the servers, for clients; for each other it is one thousand more.
const PORTS: [u16; 3] = [5222, 5223, 5224];

fn server(lab: &Lab, port: u16) -> Child {
    let store = lab.folder.join(format!("nats-{port}"));
    std::fs::create_dir_all(&store).unwrap();
    let routes: Vec<_> = PORTS.iter().map(|port| format!("nats://127.0.0.1:{}", port + 1000)).collect();
    let mut command = lab.command(&lab.programs.join("nats-server"), "nats.log");
    command.args(["-a", "127.0.0.1", "-js", "-sd"]).arg(store);
    command.args(["-p", &port.to_string(), "-n", &format!("n{port}"), "--cluster_name", "barn"]);
    command.args(["--cluster", &format!("nats://127.0.0.1:{}", port + 1000), "--routes", &routes.join(",")]);
    command.spawn().unwrap()
}

#[test]
fn nothing_is_lost_when_one_of_three_servers_is_killed() {
    inside("cluster::nothing_is_lost_when_one_of_three_servers_is_killed", async |mut lab| {
        let url = PORTS.map(|port| format!("nats://127.0.0.1:{port}")).join(",");
        let text = format!(
            "version = 1\n[stack.nats]\nurl = \"{url}\"\nreplicas = 3\n[stack.queue]\nack_wait = \"5s\"\n\
             initial_retry_wait = \"1s\"\nmax_inflight = 8\n"
        );
        std::fs::write(lab.folder.join("bothy.toml"), text).unwrap();
        bare_image(&lab);
        let mut servers: Vec<Child> = PORTS.iter().map(|port| server(&lab, *port)).collect();
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        // Another one's, as far as the cluster can tell.
        lab.start_worker();
        let mut other = lab.worker.take().unwrap();
        lab.start_worker();
        lab.until_queues_answer().await;
        let ear = Ear::deploy(&lab, "ear", &json!({})).await;
        let mut ids = BTreeSet::new();
        let end = Instant::now() + PATIENCE * 4;
        while ids.len() < 300 {
            assert!(Instant::now() < end, "{} calls were accepted", ids.len());
            // The first ones take long: however slowly they are accepted, there are more than one worker has places for.
            let path =
                if ids.len() < 24 { "/async-function/ear/slow/5000" } else { "/async-function/ear/slow/50" };
            let answer = lab.ask_with(Method::POST, path, "x", &[]).await.unwrap();
            if answer.status != 202 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            ids.insert(answer.headers["x-call-id"].to_str().unwrap().to_owned());
            if ids.len() == 100 {
                // Whichever leads the streams, it is gone for one of the three tries.
                servers[0].kill().unwrap();
                servers[0].wait().unwrap();
            }
        }
        // Both have had some.
        assert!(ear.most() > 6, "{} at a time", ear.most());
        for id in &ids {
            let end = Instant::now() + PATIENCE * 4;
            loop {
                let shown = lab.ask(Method::GET, &format!("/system/calls/{id}"), "").await.unwrap();
                if shown.status == 200 && shown.json()["state"] == "done" {
                    break;
                }
                assert!(Instant::now() < end, "{id}: {}", shown.text);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let counts = counts(&ear.heard("/slow"));
        assert!(ids.iter().all(|id| counts.contains_key(id)));
        println!("{} calls, {} made more than once", ids.len(), counts.values().filter(|n| **n > 1).count());
        other.kill().unwrap();
        other.wait().unwrap();
        for mut server in servers.drain(1..) {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    });
}
