//! Deploying, updating and removing leaves nothing behind, however often it is done.

use hyper::Method;
use serde_json::json;

use crate::lab::Lab;
use crate::namespaces::inside;
use crate::{IMAGE, deployment, image, ready};

/// Addresses for thirteen instances: who does not give them back runs out of them.
const SUBNET: &str = "10.62.0.0/28";

/// Descriptors and threads of the gateway.
fn held(lab: &Lab) -> [usize; 2] {
    let gateway = lab.processes("/stack")[0];
    ["fd", "task"].map(|folder| std::fs::read_dir(format!("/proc/{gateway}/{folder}")).unwrap().count())
}

async fn turn(lab: &Lab, times: usize) {
    let mut before = [0; 2];
    for time in 0..times {
        // All that it opens once is open by then.
        if time == 10 {
            before = held(lab);
        }
        lab.expect(200, Method::POST, "/system/functions", &deployment("f", IMAGE)).await;
        lab.expect(200, Method::PUT, "/system/functions", &deployment("f", "localhost/two")).await;
        let answer = lab.expect(200, Method::GET, "/function/f", "").await;
        assert_eq!(answer.text, "second\n", "cycle {time}");
        if time % 2 == 1 {
            lab.expect(200, Method::POST, "/system/scale-function/f", r#"{"replicas":0}"#).await;
        }
        let body = json!({"functionName": "f"}).to_string();
        lab.expect(200, Method::DELETE, "/system/functions", &body).await;
    }
    assert_eq!(lab.leftovers().await, Vec::<String>::new());
    // What the gateway itself holds does not grow with the number of cycles.
    let after = held(lab);
    let grown = before.iter().zip(after).any(|(before, after)| after > before + 8);
    assert!(!grown, "the gateway held {before:?} descriptors and threads, and holds {after:?}");
}

async fn leaves_nothing(mut lab: Lab, times: usize) {
    lab.groups = true;
    lab.arguments = ["--subnet", SUBNET].map(str::to_owned).to_vec();
    image(&lab, "one", "first\n");
    image(&lab, "two", "second\n");
    lab.start_containerd();
    lab.start_gateway();
    ready(&lab).await;
    turn(&lab, times).await;
}

#[test]
fn thirty_leave_nothing() {
    inside("cycles::thirty_leave_nothing", async |lab| leaves_nothing(lab, 30).await);
}

mod long {
    use super::*;

    #[test]
    fn five_hundred_leave_nothing() {
        inside("cycles::long::five_hundred_leave_nothing", async |lab| leaves_nothing(lab, 500).await);
    }
}
