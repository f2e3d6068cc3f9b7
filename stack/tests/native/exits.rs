//! Ends that nobody asked for, as they are told in a function's log and description.

use std::time::{Duration, Instant};

use hyper::Method;

use crate::lab::Lab;
use crate::logs::{messages, start_journal, texts};
use crate::namespaces::inside;
use crate::{IMAGE, PATIENCE, image, ready};

/// What the platform says about a function.
async fn remarks(lab: &Lab, count: usize) -> Vec<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let texts = texts(lab, "name=f").await;
        let remarks: Vec<_> = texts.iter().filter(|text| text.starts_with("bothy: ")).cloned().collect();
        if remarks.len() >= count {
            return remarks;
        }
        assert!(Instant::now() < end, "{texts:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a description says of the last end.
async fn last_exit(lab: &Lab) -> Option<String> {
    let described = lab.expect(200, Method::GET, "/system/function/f", "").await.json();
    described["annotations"]["com.bothy.last-exit"].as_str().map(str::to_owned)
}

#[test]
fn the_end_of_a_process_is_told() {
    inside("exits::the_end_of_a_process_is_told", async |mut lab| {
        image(&lab, "one", "here\n");
        start_journal(&mut lab);
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        let body = |extra: &str| format!(r#"{{"service":"f","image":"{IMAGE}"{extra}}}"#);
        lab.expect(200, Method::POST, "/system/functions", &body("")).await;
        assert_eq!(last_exit(&lab).await, None);
        let end = |pid: i32| {
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        };

        end(lab.processes("/watchdog")[0]);
        assert_eq!(remarks(&lab, 1).await, ["bothy: its process was ended by signal 9"]);
        lab.until("/function/f", "here\n", PATIENCE).await;
        let told = last_exit(&lab).await.unwrap();
        assert!(told.ends_with("Z f.0: its process was ended by signal 9"), "{told}");
        // Behind its own last words, in its order.
        let all = messages(&lab, "name=f").await;
        let of_first: Vec<_> = all.iter().filter(|message| message["instance"] == "f.0").collect();
        assert!(
            of_first.len() > 1 && of_first.last().unwrap()["text"].as_str().unwrap().starts_with("bothy: ")
        );

        // A version that ends before it is ready: its own words, then its status.
        let broken = body(r#","envProcess":"/bin/cat","envVars":{"mode":"none"}"#);
        lab.expect(400, Method::PUT, "/system/functions", &broken).await;
        let said = remarks(&lab, 2).await;
        assert_eq!(said[1], "bothy: the function's process ended with status 2 before it was ready");
        assert!(last_exit(&lab).await.unwrap().ends_with("its process ended with status 2"));

        // One that ends while no gateway looks.
        let before = lab.processes("/watchdog");
        lab.kill_gateway();
        end(before[0]);
        lab.until_ended(before[0], PATIENCE).await;
        lab.start_gateway();
        lab.until("/function/f", "here\n", PATIENCE).await;
        assert_eq!(remarks(&lab, 3).await[2], "bothy: its process was ended by signal 9");
        assert!(last_exit(&lab).await.unwrap().ends_with("its process was ended by signal 9"));

        // A new version has not ended yet; what is asked for is no end to be told.
        lab.expect(200, Method::PUT, "/system/functions", &body(r#","envVars":{"A":"b"}"#)).await;
        assert_eq!(last_exit(&lab).await, None);
        lab.expect(200, Method::POST, "/system/scale-function/f", r#"{"replicas":0}"#).await;
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
        assert_eq!(remarks(&lab, 3).await.len(), 3);
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}
