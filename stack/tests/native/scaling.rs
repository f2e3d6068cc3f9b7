//! Several instances of a function, one, and none.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use crate::lab::{self, Lab, SHIM};
use crate::namespaces::inside;
use crate::{IMAGE, PATIENCE, image, ready};

/// A function that tells which of its instances answers: the addresses of its own network namespace.
fn deployment(labels: &Value) -> String {
    let process = "/bin/cat /proc/net/fib_trie";
    json!({"service": "f", "image": IMAGE, "envProcess": process, "labels": labels}).to_string()
}

async fn scale(lab: &Lab, replicas: u64) {
    let body = json!({"replicas": replicas}).to_string();
    lab.expect(200, Method::POST, "/system/scale-function/f", &body).await;
}

/// Waits until so many answer, and the function's list says so.
async fn available(lab: &Lab, wanted: usize) {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let described = lab.expect(200, Method::GET, "/system/function/f", "").await.json();
        let available = described["availableReplicas"].as_u64().unwrap_or(0);
        if available == wanted as u64 && lab.processes("/watchdog").len() == wanted {
            return;
        }
        assert!(std::time::Instant::now() < end, "{available} instances answer, not {wanted}: {described}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Who answers, of so many calls.
async fn answering(lab: &Lab, calls: usize) -> usize {
    let mut seen = BTreeSet::new();
    for _ in 0..calls {
        seen.insert(lab.expect(200, Method::GET, "/function/f", "").await.text);
    }
    seen.len()
}

#[test]
fn instances_come_and_go() {
    inside("scaling::instances_come_and_go", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        let refused = [
            (json!({"com.openfaas.scale.min": "many"}), "\"many\" is not a number"),
            (json!({"com.openfaas.scale.min": "3", "com.openfaas.scale.max": "2"}), "3 is more than the 2"),
            (json!({"com.bothy.scale.zero-state": "ice"}), "neither stopped nor frozen"),
        ];
        for (labels, reason) in refused {
            let answer = lab.expect(400, Method::POST, "/system/functions", &deployment(&labels)).await;
            assert!(answer.text.contains(reason), "{}", answer.text);
        }

        // As many as the label wants, from the first moment.
        let labels = json!({"com.openfaas.scale.min": "2", "com.openfaas.scale.max": "3"});
        lab.expect(200, Method::POST, "/system/functions", &deployment(&labels)).await;
        let described = lab.expect(200, Method::GET, "/system/function/f", "").await.json();
        assert_eq!((&described["replicas"], &described["availableReplicas"]), (&json!(2), &json!(2)));
        assert_eq!(answering(&lab, 8).await, 2);

        // Not more than the label allows.
        scale(&lab, 9).await;
        available(&lab, 3).await;
        assert_eq!(answering(&lab, 12).await, 3);

        // One dies: the others answer at once, and it is replaced.
        let before = lab.processes("/watchdog");
        let pid = nix::unistd::Pid::from_raw(before[0]);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        // A signal takes a moment: until then it still counts as one of the three.
        lab.until_ended(before[0], PATIENCE).await;
        available(&lab, 3).await;
        assert_eq!(answering(&lab, 12).await, 3);
        assert!(!lab.processes("/watchdog").contains(&before[0]));

        // The next gateway finds all of them.
        let before = lab.processes("/watchdog");
        lab.kill_gateway();
        lab.start_gateway();
        ready(&lab).await;
        available(&lab, 3).await;
        assert_eq!(lab.processes("/watchdog"), before);

        // An update that cannot be done leaves all of them; one that can replaces all of them.
        let broken = deployment(&labels).replace("/bin/cat /proc", "/bin/absent /proc");
        let broken = broken.replacen('{', r#"{"envVars":{"mode":"none"},"#, 1);
        lab.expect(400, Method::PUT, "/system/functions", &broken).await;
        assert_eq!(lab.processes("/watchdog"), before);
        lab.expect(200, Method::PUT, "/system/functions", &deployment(&labels)).await;
        available(&lab, 3).await;
        assert!(lab.processes("/watchdog").iter().all(|pid| !before.contains(pid)));

        scale(&lab, 1).await;
        available(&lab, 2).await;
        scale(&lab, 0).await;
        assert_eq!(lab.processes("/watchdog"), Vec::<i32>::new());
        // A call wakes as many as there are to be at least.
        lab.expect(200, Method::GET, "/function/f", "").await;
        available(&lab, 2).await;
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

/// Waits until exactly one instance is prepared; gives its shim.
async fn prepared(lab: &Lab) -> i32 {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let containers = lab.containerd().containers_of("openfaas-fn", Some("f")).await.unwrap();
        let shims = lab.processes(SHIM);
        if let ([one], [shim]) = (containers.as_slice(), shims.as_slice())
            && lab.containerd().task("openfaas-fn", &one.id).await.unwrap()
                == stack::containerd::Task::Created
        {
            assert_eq!(lab.processes("/watchdog"), Vec::<i32>::new());
            return *shim;
        }
        assert!(
            std::time::Instant::now() < end,
            "no instance is prepared: {shims:?}, {} containers",
            containers.len()
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Processes whose parent that is.
fn children(pid: i32) -> Vec<i32> {
    lab::everybody().into_iter().filter(|child| lab::parent(*child) == Some(pid)).collect()
}

/// A function of which nothing is there, called while containerd is away.
#[test]
fn a_start_waits_for_containerd() {
    inside("scaling::a_start_waits_for_containerd", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.arguments = ["--prepared", "0"].map(str::to_owned).to_vec();
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        lab.expect(200, Method::POST, "/system/functions", &deployment(&json!({}))).await;
        scale(&lab, 0).await;
        assert_eq!(lab.processes(SHIM), Vec::<i32>::new());
        lab.kill_containerd();
        let began = Instant::now();
        let refused = lab.expect(503, Method::GET, "/function/f", "").await;
        assert!(refused.text.starts_with("No endpoints available for: f."), "{}", refused.text);
        assert_eq!(refused.headers["retry-after"], "5");
        let waited = began.elapsed().as_secs();
        assert!((9..40).contains(&waited), "it could have come back, or not: {waited} s");
        lab.start_containerd();
        lab.until_answered("/function/f").await;
        scale(&lab, 0).await;
        lab.kill_containerd();
        let call = tokio::spawn(lab::ask(lab.address(), Method::GET, "/function/f", "", &[]));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!call.is_finished());
        lab.start_containerd();
        assert_eq!(call.await.unwrap().unwrap().status, 200);
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

#[test]
fn the_next_call_finds_an_instance_at_hand() {
    inside("scaling::the_next_call_finds_an_instance_at_hand", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        lab.expect(200, Method::POST, "/system/functions", &deployment(&json!({}))).await;
        scale(&lab, 0).await;
        let shim = prepared(&lab).await;
        lab.expect(200, Method::GET, "/function/f", "").await;
        assert_eq!(lab.processes(SHIM), [shim]);

        // Whoever dies meanwhile is replaced: the gateway, containerd, the shim.
        scale(&lab, 0).await;
        let shim = prepared(&lab).await;
        lab.kill_gateway();
        lab.start_gateway();
        ready(&lab).await;
        assert_eq!(prepared(&lab).await, shim);
        lab.kill_containerd();
        lab.start_containerd();
        ready(&lab).await;
        assert_eq!(prepared(&lab).await, shim);
        lab.expect(200, Method::GET, "/function/f", "").await;
        assert_eq!(lab.processes(SHIM), [shim]);
        scale(&lab, 0).await;
        let shim = prepared(&lab).await;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
        lab.expect(200, Method::GET, "/function/f", "").await;
        // So is the process that waits.
        scale(&lab, 0).await;
        let shim = prepared(&lab).await;
        let [waiting] = children(shim)[..] else { panic!("{:?} wait", children(shim)) };
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(waiting), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
        lab.until_ended(waiting, PATIENCE).await;
        lab.expect(200, Method::GET, "/function/f", "").await;

        // It begins without a call, too.
        scale(&lab, 0).await;
        let shim = prepared(&lab).await;
        scale(&lab, 1).await;
        available(&lab, 1).await;
        assert_eq!(lab.processes(SHIM), [shim]);

        // What was prepared of an older version is of no use.
        scale(&lab, 0).await;
        prepared(&lab).await;
        lab.expect(200, Method::PUT, "/system/functions", &deployment(&json!({"a": "b"}))).await;
        available(&lab, 1).await;
        scale(&lab, 0).await;
        prepared(&lab).await;
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}
