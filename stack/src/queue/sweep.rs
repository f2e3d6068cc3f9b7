//! Removes bodies that no call has: a gateway that ended while one came, or a power cut, leaves them.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::TryStreamExt;

use super::bodies::{causes, name_of};
use super::broker::Broker;
use super::call::Payload;
use super::dead::Letter;
use super::subject::{BODIES, DEAD_LETTERS, all_of, stream};

/// First look after the start, and pause between two.
const FIRST: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_secs(6 * 3600);

/// Sweeps for ever.
pub async fn keep_swept(broker: Broker) {
    tokio::time::sleep(FIRST).await;
    loop {
        match sweep(&broker).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!("{removed} bodies that no call had are removed"),
            Err(error) => tracing::debug!("looking for bodies that no call has: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Removes what no call has now and had none at the look before; gives how many bodies that were.
///
/// # Errors
/// The streams cannot be read; in words.
pub async fn sweep(broker: &Broker) -> Result<usize, String> {
    let before = kept(broker).await?;
    if before.is_empty() {
        return Ok(0);
    }
    // One that is coming has no call yet: what was there before the calls were looked at, and still is a while after it.
    tokio::time::sleep(Duration::from_secs(120)).await;
    let mut alone = before;
    // Twice: a call that is given up, or put back, is in one of them at any time, and may be missed once.
    let buried = |message: &bytes::Bytes| Payload::decode(&Letter::decode(message)?.1).ok()?.call.stored;
    without(broker, DEAD_LETTERS, "dead.>", buried, &mut alone).await?;
    for queue in broker.queues().await? {
        let used = |message: &bytes::Bytes| Payload::decode(message).ok()?.call.stored;
        without(broker, &stream(&queue), &all_of(&queue), used, &mut alone).await?;
    }
    without(broker, DEAD_LETTERS, "dead.>", buried, &mut alone).await?;
    for name in &alone {
        broker.purge(BODIES, &super::bodies::subject(name)).await;
    }
    Ok(alone.len())
}

/// Names of the bodies that there are.
async fn kept(broker: &Broker) -> Result<HashSet<String>, String> {
    let stream = broker.stream(BODIES).await?;
    let subjects = stream.info_with_subjects(">").await.map_err(|error| causes(&error))?;
    let subjects: Vec<(String, usize)> = subjects.try_collect().await.map_err(|error| causes(&error))?;
    Ok(subjects.iter().filter_map(|(subject, _)| name_of(subject)).map(str::to_owned).collect())
}

/// Leaves only those that no message of a stream has.
async fn without(
    broker: &Broker,
    stream: &str,
    subject: &str,
    used: impl Fn(&bytes::Bytes) -> Option<String>,
    alone: &mut HashSet<String>,
) -> Result<(), String> {
    let mut from = 1;
    while let Some(message) = broker.next(stream, from, subject).await? {
        from = message.sequence + 1;
        if let Some(name) = used(&message.payload) {
            alone.remove(&name);
        }
    }
    Ok(())
}
