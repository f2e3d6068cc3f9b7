//! Calls while gateway, worker and NATS server are killed at random moments: none that was accepted may be lost.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;

use crate::answer::ask;
use crate::ear::{Ear, counts};
use crate::lab::Lab;

/// Clients that make calls.
const CLIENTS: usize = 16;
/// How long all of them may take to end.
const PATIENCE: Duration = Duration::from_secs(300);

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub accepted: usize,
    pub lost: usize,
    pub dead: usize,
    /// Calls beyond the first one of each that was made more than once.
    pub duplicates: usize,
    pub kills: usize,
}

/// Makes so many calls of an [`Ear`], whose image must be there, while one of the three is killed every half second or so.
pub async fn run(lab: &mut Lab, calls: usize) -> Outcome {
    let ear = Ear::deploy(lab, "ear", &json!({})).await;
    let (address, left) = (lab.address(), Arc::new(AtomicUsize::new(calls)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let left = left.clone();
            tokio::spawn(async move {
                let mut accepted = Vec::new();
                let take = |left: usize| left.checked_sub(1);
                let mut number = 0;
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                    // One that is not accepted is nobody's: the next has another name.
                    loop {
                        number += 1;
                        let id = format!("call-{client}-{number}");
                        let headers = [("x-call-id", id.as_str())];
                        let answer =
                            ask(address, Method::POST, "/async-function/ear/slow/20", "x", &headers).await;
                        if answer.is_ok_and(|answer| answer.status == 202) {
                            accepted.push(id);
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                accepted
            })
        })
        .collect();
    let random = RandomState::new();
    let mut kills = 0;
    while left.load(Ordering::Relaxed) > 0 || kills < 6 {
        let number = random.hash_one(kills);
        tokio::time::sleep(Duration::from_millis(200 + number / 7 % 700)).await;
        lab.kill_one(usize::try_from(number % 3).unwrap()).await;
        kills += 1;
    }
    let mut accepted = BTreeSet::new();
    for client in clients {
        accepted.extend(client.await.unwrap());
    }
    lab.until_queues_answer().await;
    let end = Instant::now() + PATIENCE;
    let mut ended = HashMap::new();
    let mut open: Vec<String> = accepted.iter().cloned().collect();
    while !open.is_empty() && Instant::now() < end {
        let mut next = Vec::new();
        for id in open {
            let shown = lab.ask(Method::GET, &format!("/system/calls/{id}"), "").await;
            let state =
                shown.ok().filter(|shown| shown.status == 200).map(|shown| shown.json()["state"].clone());
            match state.as_ref().and_then(|state| state.as_str()) {
                Some(state @ ("done" | "dead")) => drop(ended.insert(id, state.to_owned())),
                _ => next.push(id),
            }
        }
        open = next;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let counts = counts(&ear.heard("/slow"));
    let lost: Vec<&String> =
        accepted.iter().filter(|id| !ended.contains_key(*id) || !counts.contains_key(*id)).collect();
    for id in lost.iter().take(5) {
        let shown = lab.ask(Method::GET, &format!("/system/calls/{id}"), "").await;
        println!("lost: {id}: {:?}, made {:?} times", shown.map(|shown| shown.text), counts.get(*id));
    }
    let made_again = accepted.iter().filter_map(|id| counts.get(id)).map(|count| count - 1).sum();
    let outcome = Outcome {
        accepted: accepted.len(),
        lost: lost.len(),
        dead: ended.values().filter(|state| *state == "dead").count(),
        duplicates: made_again,
        kills,
    };
    let Outcome { accepted, lost, dead, duplicates, kills } = &outcome;
    println!(
        "{accepted} calls, {kills} kills: {lost} lost, {dead} dead letters, {duplicates} made more than once"
    );
    outcome
}
