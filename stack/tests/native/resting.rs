//! An instance that the next call is to find at hand, and what happens to it meanwhile: see docs/function-states.md.

use std::fs;
use std::time::{Duration, Instant};

use hyper::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use stack::containerd::Task;

use crate::lab::{Lab, SHIM, parent};
use crate::namespaces::inside;
use crate::{IMAGE, PATIENCE, image, ready};

/// Where functions' groups are, by instance.
const GROUPS: &str = "/sys/fs/cgroup/workload/openfaas-fn";

/// How long a call may take whose function's shim has to be given up first.
const GIVEN_UP: Duration = Duration::from_secs(30);

fn deployment(version: &str, zero_state: &str) -> String {
    json!({"service": "f", "image": IMAGE, "envProcess": "/bin/sh", "envVars": {"VERSION": version},
           "labels": {"com.bothy.scale.zero-state": zero_state}})
    .to_string()
}

async fn version(lab: &Lab) -> String {
    lab.expect(200, Method::POST, "/function/f", "echo \"$VERSION\"").await.text
}

async fn to_none(lab: &Lab) {
    let none = json!({"replicas": 0}).to_string();
    lab.expect(200, Method::POST, "/system/scale-function/f", &none).await;
}

/// Waits until a function's only instance stands still.
pub async fn until_frozen(function: &str) {
    let frozen = || {
        let mut groups = fs::read_dir(GROUPS).into_iter().flatten().flatten().map(|entry| entry.path());
        groups.any(|group| {
            group.file_stem().is_some_and(|stem| stem == function)
                && fs::read_to_string(group.join("cgroup.events")).is_ok_and(|text| text.contains("frozen 1"))
        })
    };
    let end = Instant::now() + PATIENCE;
    while !frozen() {
        assert!(Instant::now() < end, "{function} is not frozen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until exactly one instance is prepared; gives its shim.
async fn prepared(lab: &Lab) -> i32 {
    let end = Instant::now() + PATIENCE;
    loop {
        let containers = lab.containerd().containers_of("openfaas-fn", Some("f")).await.unwrap();
        if let ([one], [shim]) = (containers.as_slice(), lab.processes(SHIM).as_slice())
            && lab.containerd().task("openfaas-fn", &one.id).await.unwrap() == Task::Created
        {
            return *shim;
        }
        assert!(Instant::now() < end, "no instance is prepared: {} containers", containers.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Takes the image away, with all that only it holds.
pub async fn lose_image(lab: &Lab) {
    let end = Instant::now() + PATIENCE;
    while lab.containerd().image("openfaas-fn", IMAGE).await.is_ok() {
        assert!(Instant::now() < end, "somebody brings it again and again");
        // A gateway that has just begun imports what the appliance brought, once.
        let _ = lab.containerd().remove_name("openfaas-fn", IMAGE).await;
        lab.containerd().collect("openfaas-fn").await.unwrap();
    }
}

#[test]
fn whatever_happens_to_what_is_frozen() {
    inside("resting::whatever_happens_to_what_is_frozen", async |mut lab| {
        lab.groups = true;
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        lab.expect(200, Method::POST, "/system/functions", &deployment("0", "frozen")).await;
        let mut current = "0";
        for event in ["nothing", "up", "image", "shim", "update", "silence"] {
            assert_eq!(version(&lab).await, format!("{current}\n"), "before {event}");
            to_none(&lab).await;
            until_frozen("f").await;
            let [old] = lab.processes("/watchdog")[..] else { panic!("{event}: one process is frozen") };
            let shim = Pid::from_raw(parent(old).unwrap());
            match event {
                // It goes on without a call.
                "up" => {
                    lab.expect(200, Method::POST, "/system/scale-function/f", r#"{"replicas":1}"#).await;
                    lab.until_available("f", 1).await;
                }
                "image" => lose_image(&lab).await,
                "shim" => {
                    kill(shim, Signal::SIGKILL).unwrap();
                    lab.until_ended(old, PATIENCE).await;
                }
                "update" => {
                    current = "1";
                    lab.expect(200, Method::PUT, "/system/functions", &deployment(current, "frozen")).await;
                }
                // Nobody needs it to let the function go on.
                "silence" => kill(shim, Signal::SIGSTOP).unwrap(),
                _ => {}
            }
            assert_eq!(version(&lab).await, format!("{current}\n"), "after {event}");
            let stays = !matches!(event, "shim" | "update");
            if !stays {
                lab.until_ended(old, PATIENCE).await;
            }
            let processes = lab.processes("/watchdog");
            assert_eq!((processes.len(), processes[0] == old), (1, stays), "after {event}");
        }
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

#[test]
fn whatever_happens_to_what_is_prepared() {
    inside("resting::whatever_happens_to_what_is_prepared", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        lab.expect(200, Method::POST, "/system/functions", &deployment("0", "stopped")).await;
        to_none(&lab).await;
        let shim = prepared(&lab).await;
        // It has all that it needs.
        lose_image(&lab).await;
        assert_eq!(version(&lab).await, "0\n");
        assert_eq!(lab.processes(SHIM), [shim]);
        // What runs has, too; and the appliance brings the image again for what comes after it.
        lose_image(&lab).await;
        assert_eq!(version(&lab).await, "0\n");
        to_none(&lab).await;
        let shim = prepared(&lab).await;
        // containerd knows of it a moment before it says so; what stops answering in that moment is a start that fails.
        tokio::time::sleep(Duration::from_millis(500)).await;
        kill(Pid::from_raw(shim), Signal::SIGSTOP).unwrap();
        let began = Instant::now();
        assert_eq!(version(&lab).await, "0\n");
        assert!(began.elapsed() < GIVEN_UP, "another one answers after {:?}", began.elapsed());
        lab.until_ended(shim, PATIENCE).await;
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}
