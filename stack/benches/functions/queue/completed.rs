//! How many calls the worker makes in a second, from a full queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::{CLIENTS, QUEUE, call, jetstream};
use crate::figure::{Figure, percentile};
use crate::lab::Lab;

/// How long calls are made that somebody waits for.
const LASTS: Duration = Duration::from_secs(2);
/// Over so many connections.
const SYNCHRONOUS: usize = 16;
/// The longest that a queue may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Both take turns.
pub async fn figures(lab: &mut Lab, turns: usize, calls: usize) -> Vec<Figure> {
    let mut ratios = Vec::new();
    for turn in 0..=turns {
        fill(calls).await;
        let before = synchronous().await;
        let drained = drained(lab, calls).await;
        let after = synchronous().await;
        // The host is not the same from one second to the next.
        let floor = (before + after) / 2.0;
        if turn > 0 {
            ratios.push((drained / floor, drained, floor));
        }
    }
    ratios.sort_by(|one, other| one.0.total_cmp(&other.0));
    let floors = percentile(ratios.iter().map(|(.., floor)| *floor).collect(), 50);
    let (_, drained, floor) = ratios[ratios.len() / 2];
    vec![
        Figure::with_floor("completed", drained, "1/s", floor).of("queue"),
        Figure::alone("synchronous", floors, "1/s").of("queue"),
    ]
}

async fn fill(calls: usize) {
    let left = Arc::new(AtomicUsize::new(calls));
    let clients = (0..CLIENTS).map(|_| {
        let left = left.clone();
        let more = move || {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
        };
        tokio::spawn(call("/async-function/void", 202, more))
    });
    let made: usize = join_all(clients).await.into_iter().map(Result::unwrap).sum();
    assert_eq!(made, calls);
}

async fn synchronous() -> f64 {
    let began = Instant::now();
    let clients =
        (0..SYNCHRONOUS).map(|_| tokio::spawn(call("/function/void", 200, move || began.elapsed() < LASTS)));
    let made: usize = join_all(clients).await.into_iter().map(Result::unwrap).sum();
    made as f64 / began.elapsed().as_secs_f64()
}

/// Calls a second, from the worker's start on until nothing is left in the queue.
async fn drained(lab: &mut Lab, calls: usize) -> f64 {
    let jetstream = jetstream().await;
    let stream = jetstream.get_stream(QUEUE).await.unwrap();
    lab.start_worker();
    let left = async || stream.get_info().await.unwrap().state.messages;
    // From the first one on: how long a program takes to start is not what this is of.
    let end = Instant::now() + PATIENCE;
    while left().await == calls as u64 {
        assert!(Instant::now() < end, "the worker makes no call");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let began = Instant::now();
    let at_first = left().await;
    while left().await > 0 {
        assert!(Instant::now() < end, "{} calls are left", left().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rate = at_first as f64 / began.elapsed().as_secs_f64();
    lab.kill_worker();
    rate
}
