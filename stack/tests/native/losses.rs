//! Asynchronous calls while processes are killed and the power fails: none that was accepted may be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;

use super::PATIENCE;
use super::ear::{Ear, counts};
use super::queue::{QUICK, call, start, until};
use crate::lab::Lab;
use crate::namespaces::inside;

/// The default queue's stream.
const QUEUE: &str = "OF_faas-request";

#[test]
fn a_killed_worker_gateway_or_server_loses_nothing() {
    inside("losses::a_killed_worker_gateway_or_server_loses_nothing", async |mut lab| {
        start(&mut lab, QUICK).await;
        let ear = Ear::deploy(&lab, "ear", &json!({})).await;
        let mut ids = BTreeSet::new();
        for round in 0..3 {
            for _ in 0..60 {
                ids.insert(call(&lab, "ear/slow/200", "", &[]).await);
            }
            ear.until("/slow", 60 * round + 20).await;
            lab.kill_one(round).await;
            lab.until_queues_answer().await;
        }
        for id in &ids {
            assert_eq!(until(&lab, id, "done").await["status"], 200);
        }
        let counts = counts(&ear.heard("/slow"));
        assert!(ids.iter().all(|id| counts.contains_key(id)));
        println!(
            "{} calls, {} were made more than once",
            ids.len(),
            counts.values().filter(|n| **n > 1).count()
        );
    });
}

/// Waits until the queue has nothing: a call that came to its end goes.
async fn until_empty(lab: &Lab) {
    let end = Instant::now() + PATIENCE * 2;
    while lab.messages(QUEUE).await > 0 {
        assert!(Instant::now() < end, "a call stays in the queue");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the disk has of a queue's messages, as a power cut can leave it beside all else that is newer.
fn messages(lab: &Lab) -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = lab.folder.join("nats/jetstream/$G/streams").join(QUEUE).join("msgs");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

async fn cut_the_power(lab: &mut Lab, messages: &BTreeMap<PathBuf, Vec<u8>>) {
    // The time after which NATS writes how far a consumer is.
    tokio::time::sleep(Duration::from_millis(500)).await;
    lab.kill_worker();
    lab.kill_nats();
    for path in self::messages(lab).keys() {
        std::fs::remove_file(path).unwrap();
    }
    for (path, bytes) in messages {
        std::fs::write(path, bytes).unwrap();
    }
    lab.start_nats();
    lab.start_worker();
    lab.until_queues_answer().await;
}

#[test]
fn a_call_that_a_power_cut_brought_back_is_not_made_again_and_goes() {
    inside("losses::a_call_that_a_power_cut_brought_back_is_not_made_again_and_goes", async |mut lab| {
        start(&mut lab, QUICK).await;
        let ear = Ear::deploy(&lab, "ear", &json!({})).await;
        let id = call(&lab, "ear/slow/1000", "", &[]).await;
        ear.until("/slow", 1).await;
        let before = messages(&lab);
        until(&lab, &id, "done").await;
        until_empty(&lab).await;
        cut_the_power(&mut lab, &before).await;
        assert_eq!(lab.messages(QUEUE).await, 1);
        until_empty(&lab).await;
        until(&lab, &id, "done").await;
        assert_eq!(ear.heard("/slow").len(), 1);
    });
}

#[test]
fn a_call_that_gets_the_number_of_a_lost_one_is_made() {
    inside("losses::a_call_that_gets_the_number_of_a_lost_one_is_made", async |mut lab| {
        start(&mut lab, QUICK).await;
        let ear = Ear::deploy(&lab, "ear", &json!({})).await;
        let first = call(&lab, "ear/first", "", &[]).await;
        until(&lab, &first, "done").await;
        let before = messages(&lab);
        for _ in 0..3 {
            let lost = call(&lab, "ear/lost", "", &[]).await;
            until(&lab, &lost, "done").await;
        }
        cut_the_power(&mut lab, &before).await;
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(call(&lab, "ear/new", "", &[]).await);
        }
        for id in &ids {
            until(&lab, id, "done").await;
        }
        assert_eq!(counts(&ear.heard("/new")).len(), 3);
    });
}

#[test]
fn nothing_is_lost_while_things_are_killed_at_random() {
    inside("losses::nothing_is_lost_while_things_are_killed_at_random", async |mut lab| {
        start(&mut lab, QUICK).await;
        let outcome = crate::chaos::run(&mut lab, 300).await;
        assert_eq!((outcome.accepted, outcome.lost), (300, 0), "{outcome:?}");
    });
}

#[test]
fn what_was_accepted_outlives_a_full_disk() {
    inside("losses::what_was_accepted_outlives_a_full_disk", async |mut lab| {
        let store = lab.folder.join("nats");
        std::fs::create_dir_all(&store).unwrap();
        let (none, size) = (None::<&str>, Some("size=24m"));
        nix::mount::mount(none, &store, Some("tmpfs"), nix::mount::MsFlags::empty(), size).unwrap();
        // Somebody else's.
        let ballast = store.join("ballast");
        std::fs::write(&ballast, vec![1; 18 << 20]).unwrap();
        start(&mut lab, QUICK).await;
        let ear = Ear::deploy(&lab, "ear", &json!({})).await;
        lab.kill_worker();
        let body = "x".repeat(100_000);
        let mut ids = BTreeSet::new();
        let refused = loop {
            let answer = lab.ask_with(Method::POST, "/async-function/ear/slow/1", &body, &[]).await.unwrap();
            if answer.status != 202 {
                break answer;
            }
            ids.insert(answer.headers["x-call-id"].to_str().unwrap().to_owned());
            assert!(ids.len() < 200, "the disk takes it all");
        };
        assert_eq!(refused.status, 503, "{}", refused.text);
        assert!(!ids.is_empty() && refused.headers.contains_key("retry-after"));
        // Functions answer all the same.
        lab.expect(200, Method::POST, "/function/ear/slow/1", "").await;
        std::fs::remove_file(&ballast).unwrap();
        lab.start_worker();
        lab.until_queues_answer().await;
        for id in &ids {
            assert_eq!(until(&lab, id, "done").await["status"], 200);
        }
        let counts = counts(&ear.heard("/slow"));
        assert!(ids.iter().all(|id| counts.contains_key(id)));
        // And more are taken again.
        let next = call(&lab, "ear/next", "", &[]).await;
        until(&lab, &next, "done").await;
    });
}

mod long {
    use super::*;

    #[test]
    fn nothing_is_lost_while_gateway_worker_and_server_are_killed() {
        inside(
            "losses::long::nothing_is_lost_while_gateway_worker_and_server_are_killed",
            async |mut lab| {
                start(&mut lab, QUICK).await;
                let outcome = crate::chaos::run(&mut lab, 5_000).await;
                assert_eq!((outcome.accepted, outcome.lost), (5_000, 0), "{outcome:?}");
            },
        );
    }
}
