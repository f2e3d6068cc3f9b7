//! How many calls are taken in a second: each is on the disk before its caller hears so.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::Mutex;

use super::{CLIENTS, QUEUE, call, jetstream};
use crate::figure::{Figure, percentile};
use crate::lab::Lab;

/// How long each load lasts.
const LASTS: Duration = Duration::from_secs(2);
/// Where messages go that are nobody's.
const SCRATCH: &str = "SCRATCH";

/// The three take turns, since the host is not the same from one second to the next.
pub async fn figures(lab: &Lab, turns: usize) -> Vec<Figure> {
    let jetstream = jetstream().await;
    let config = Config {
        name: SCRATCH.to_owned(),
        subjects: vec!["scratch".to_owned()],
        max_bytes: 256 << 20,
        discard: DiscardPolicy::Old,
        ..Config::default()
    };
    jetstream.create_stream(config).await.unwrap();
    let mut rates: [Vec<f64>; 3] = Default::default();
    let mut payload = Bytes::from(vec![b'x'; 700]);
    for turn in 0..=turns {
        let taken = accepted().await;
        // As large as what the gateway stores.
        let stream = jetstream.get_stream(QUEUE).await.unwrap();
        let last = stream.cached_info().state.last_sequence;
        if let Ok(message) = stream.get_raw_message(last).await {
            payload = message.payload;
        }
        stream.purge().await.unwrap();
        let plain = published(&payload, None).await;
        let synced = published(&payload, Some(lab.folder.join("nats"))).await;
        jetstream.get_stream(SCRATCH).await.unwrap().purge().await.unwrap();
        // The first turn makes everybody warm.
        if turn > 0 {
            for (rates, rate) in rates.iter_mut().zip([taken, plain, synced]) {
                rates.push(rate);
            }
        }
    }
    jetstream.delete_stream(SCRATCH).await.unwrap();
    let [taken, plain, synced] = rates.map(|rates| percentile(rates, 50));
    vec![
        Figure::with_floor("accepted", taken, "1/s", plain).of("queue"),
        Figure::with_floor("accepted_fsync", taken, "1/s", synced).of("queue"),
    ]
}

async fn accepted() -> f64 {
    let began = Instant::now();
    let clients = (0..CLIENTS)
        .map(|_| tokio::spawn(call("/async-function/void", 202, move || began.elapsed() < LASTS)));
    let made: usize = join_all(clients).await.into_iter().map(Result::unwrap).sum();
    made as f64 / began.elapsed().as_secs_f64()
}

/// Messages published by as many, each of whom waits for its acknowledgement; with a folder also for a sync of its own.
async fn published(payload: &Bytes, sync: Option<PathBuf>) -> f64 {
    let began = Instant::now();
    let turn = Arc::new(Mutex::new(()));
    let clients = (0..CLIENTS).map(|_| {
        let (payload, sync, turn) = (payload.clone(), sync.clone(), turn.clone());
        tokio::spawn(async move {
            // A connection each would only cost more.
            let jetstream = jetstream_shared().await;
            let mut made = 0;
            while began.elapsed() < LASTS {
                jetstream.publish("scratch", payload.clone()).await.unwrap().await.unwrap();
                if let Some(folder) = &sync {
                    let _turn = turn.lock().await;
                    sync_all(folder).await;
                }
                made += 1;
            }
            made
        })
    });
    let made: usize = join_all(clients).await.into_iter().map(Result::unwrap).sum();
    made as f64 / began.elapsed().as_secs_f64()
}

async fn jetstream_shared() -> async_nats::jetstream::Context {
    static SHARED: tokio::sync::OnceCell<async_nats::jetstream::Context> = tokio::sync::OnceCell::const_new();
    SHARED.get_or_init(jetstream).await.clone()
}

async fn sync_all(folder: &Path) {
    stack::queue::Disk::here(folder.to_owned()).sync().await.unwrap();
}
