//! Deploying, updating and removing leaves nothing behind, however often it is done.

use hyper::Method;
use serde_json::json;

use crate::lab::Lab;
use crate::namespaces::inside;
use crate::{IMAGE, deployment, image, ready};

/// Addresses for thirteen instances: who does not give them back runs out of them.
const SUBNET: &str = "10.62.0.0/28";

async fn turn(lab: &Lab, times: usize) {
    for time in 0..times {
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
    // What the gateway itself holds: descriptors and threads do not grow with the number of cycles.
    let gateway = lab.processes("/stack")[0];
    let open = std::fs::read_dir(format!("/proc/{gateway}/fd")).unwrap().count();
    assert!(open < 100, "the gateway holds {open} descriptors");
}

async fn leaves_nothing(mut lab: Lab, times: usize) {
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
