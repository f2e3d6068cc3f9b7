//! An instance on its way out, and what happens meanwhile: see docs/function-states.md.

use hyper::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::lab::{Answer, Lab, SHIM, ask, parent};
use crate::namespaces::inside;
use crate::resting::lose_image;
use crate::{IMAGE, PATIENCE, image, ready};

/// A function that does what a call says. It is given less time to end than the calls take.
fn deployment(version: &str) -> String {
    let variables = json!({"VERSION": version, "grace_period": "1s"});
    json!({"service": "f", "image": IMAGE, "envProcess": "/bin/sh", "envVars": variables}).to_string()
}

/// A call that takes its time.
async fn begin(lab: &Lab) -> tokio::task::JoinHandle<Result<Answer, String>> {
    let call = tokio::spawn(async move {
        ask("127.0.0.1:8080".parse().unwrap(), Method::POST, "/function/f", "sleep 4; echo \"$VERSION\"", &[])
            .await
    });
    let end = std::time::Instant::now() + PATIENCE;
    while lab.processes("sleep").is_empty() {
        assert!(std::time::Instant::now() < end, "the call does not begin");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    call
}

async fn version(lab: &Lab) -> String {
    lab.expect(200, Method::POST, "/function/f", "echo \"$VERSION\"").await.text
}

async fn scale(lab: &Lab, replicas: u64) {
    let body = json!({"replicas": replicas}).to_string();
    lab.expect(200, Method::POST, "/system/scale-function/f", &body).await;
}

/// Waits until so many instances run, whoever they are.
async fn running(lab: &Lab, wanted: usize) -> Vec<i32> {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let processes = lab.processes("/watchdog");
        if processes.len() == wanted {
            return processes;
        }
        assert!(std::time::Instant::now() < end, "{processes:?} run, not {wanted}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[test]
fn whatever_happens_to_what_is_on_its_way_out() {
    inside("states::whatever_happens_to_what_is_on_its_way_out", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        lab.expect(200, Method::POST, "/system/functions", &deployment("0")).await;
        let mut current = "0".to_owned();
        for event in ["nothing", "containerd", "gateway", "shim", "end", "image", "update", "up", "none"] {
            let (before, after) = (current, format!("after {event}"));
            let old = running(&lab, 1).await[0];
            let call = begin(&lab).await;
            lab.expect(200, Method::PUT, "/system/functions", &deployment(&after)).await;
            assert_eq!(version(&lab).await, format!("{after}\n"));
            assert!(lab.processes("/watchdog").contains(&old), "{event}: it is left to its call");
            current = after;
            match event {
                "containerd" => {
                    lab.kill_containerd();
                    lab.start_containerd();
                }
                "gateway" => {
                    lab.kill_gateway();
                    lab.start_gateway();
                    ready(&lab).await;
                }
                "shim" => kill(Pid::from_raw(parent(old).unwrap()), Signal::SIGKILL).unwrap(),
                "end" => kill(Pid::from_raw(old), Signal::SIGKILL).unwrap(),
                "update" => {
                    "one more".clone_into(&mut current);
                    lab.expect(200, Method::PUT, "/system/functions", &deployment(&current)).await;
                }
                "image" => lose_image(&lab).await,
                "up" => scale(&lab, 2).await,
                "none" => scale(&lab, 0).await,
                _ => {}
            }
            let answered = call.await.unwrap().map(|answer| answer.text);
            match event {
                // The one had the call's connection, the others its process.
                "gateway" | "shim" | "end" => assert_ne!(answered, Ok(format!("{before}\n"))),
                _ => assert_eq!(answered, Ok(format!("{before}\n")), "{event}"),
            }
            assert_eq!(version(&lab).await, format!("{current}\n"), "{event}");
            lab.until_ended(old, PATIENCE).await;
            if event == "up" {
                running(&lab, 2).await;
                scale(&lab, 1).await;
            }
            // Whatever else there was goes too.
            running(&lab, 1).await;
        }
        let call = begin(&lab).await;
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
        assert_eq!(call.await.unwrap().unwrap().text, format!("{current}\n"));
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

#[test]
fn a_shim_that_does_not_answer() {
    inside("states::a_shim_that_does_not_answer", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        for _ in 0..2 {
            lab.expect(200, Method::POST, "/system/functions", &deployment("0")).await;
            let [shim] = lab.processes(SHIM)[..] else { panic!("there is one shim") };
            kill(Pid::from_raw(shim), Signal::SIGSTOP).unwrap();
            // Calls do not go through it.
            assert_eq!(version(&lab).await, "0\n");
            lab.expect(200, Method::PUT, "/system/functions", &deployment("1")).await;
            assert_eq!(version(&lab).await, "1\n");
            let [new] = lab.processes(SHIM).into_iter().filter(|pid| *pid != shim).collect::<Vec<_>>()[..]
            else {
                panic!("there is one shim more")
            };
            kill(Pid::from_raw(new), Signal::SIGSTOP).unwrap();
            // Everybody else is well.
            lab.expect(200, Method::GET, "/healthz", "").await;
            lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
            assert_eq!(lab.leftovers().await, Vec::<String>::new());
        }
    });
}
