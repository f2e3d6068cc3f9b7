//! The connection to NATS, and the streams that there have to be.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy, Stream,
};
use async_nats::jetstream::{Context, message::StreamMessage};
use async_nats::{Client, ConnectOptions};
use bytes::Bytes;
use futures_util::TryStreamExt;
use provisioning::{Login, Nats, QueueName};

use super::bodies::{Bodies, LARGEST_INLINE_BYTES, causes};
use super::disk::Disk;
use super::subject::{BODIES, DEAD_LETTERS, LEDGER, LEDGER_SUBJECT, all_of, queue_of, stream};
use crate::error::{Error, Result};
use crate::space::Space;

/// The machine's own server.
const OWN: &str = "nats://127.0.0.1:4222";

/// How long JetStream may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take to take a message.
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(10);
/// Messages that may wait for that at a time.
const UNACKNOWLEDGED: usize = 4096;
/// Longest pause between two attempts to connect.
const RECONNECT: Duration = Duration::from_secs(2);

/// What the streams may take of the file system that they lie on, each within its own bounds.
const QUEUE_SHARE: Share = Share { part: 8, least: 16 << 20, most: 1 << 30 };
const BODIES_SHARE: Share = Share { part: 8, least: 16 << 20, most: 4 << 30 };
const DEAD_SHARE: Share = Share { part: 16, least: 8 << 20, most: 512 << 20 };
const LEDGER_SHARE: Share = Share { part: 64, least: 4 << 20, most: 64 << 20 };

struct Share {
    part: u64,
    least: u64,
    most: u64,
}

/// The connection. Clones are of the same one.
#[derive(Clone)]
pub struct Broker {
    /// NATS.
    pub client: Client,
    /// JetStream.
    pub jetstream: Context,
    /// Where its messages lie.
    pub disk: Disk,
    sizes: Sizes,
    replicas: usize,
    /// Streams that were seen to be there.
    known: Arc<Mutex<HashSet<String>>>,
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    queue: i64,
    bodies: i64,
    dead: i64,
    ledger: i64,
}

impl Sizes {
    /// On a disk of that size; none in a cluster, whose limits are its own. The ledger always has one, because nothing else ends it.
    fn new(disk: Option<u64>, queue: Option<u64>) -> Self {
        let of =
            |share: Share| disk.map_or(-1, |size| (size / share.part).clamp(share.least, share.most) as i64);
        let queue = queue.map_or_else(|| of(QUEUE_SHARE), |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        let ledger = Some(of(LEDGER_SHARE)).filter(|bytes| *bytes > 0).unwrap_or(LEDGER_SHARE.most as i64);
        Self { queue, bodies: of(BODIES_SHARE), dead: of(DEAD_SHARE), ledger }
    }
}

impl Broker {
    /// Connects in the background, and again whenever that is needed, for ever. `store` is the own server's folder,
    /// `own` where it is found if not at its usual address.
    ///
    /// # Errors
    /// The configuration names files that cannot be read, or no servers.
    pub async fn connect(
        name: &str,
        nats: &Nats,
        store: &Path,
        max_bytes: Option<u64>,
        own: Option<&str>,
    ) -> Result<Self> {
        let servers = match &nats.url {
            Some(url) => url.servers(),
            None => vec![own.unwrap_or(OWN).to_owned()],
        };
        let connect = |reason: String| Error::Invalid { what: servers.join(","), reason };
        let addresses: Vec<async_nats::ServerAddr> = servers
            .iter()
            .map(|server| server.parse::<async_nats::ServerAddr>())
            .collect::<Result<_, _>>()
            .map_err(|error| connect(error.to_string()))?;
        let last = Arc::new(Mutex::default());
        let mut options = ConnectOptions::new()
            .name(name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(|attempt| {
                (Duration::from_millis(20) * u32::try_from(attempt).unwrap_or(u32::MAX).min(1000))
                    .min(RECONNECT)
            })
            .read_buffer_capacity(16 << 10)
            .event_callback(move |event| {
                let last = last.clone();
                async move { told(&event, &last) }
            });
        options = match &nats.login {
            None => options,
            Some(Login::Password { user, password }) => {
                options.user_and_password(user.clone(), password.expose().to_owned())
            }
            Some(Login::Credentials(path)) => {
                let text = fs::read_to_string(path).unwrap_or_default();
                match ConnectOptions::new().credentials(&text) {
                    Ok(_) => options.credentials(&text).map_err(|error| connect(error.to_string()))?,
                    // The server refuses us then, and says so: functions run all the same.
                    Err(error) => {
                        tracing::error!("NATS: no credentials in {}: {error}", path.display());
                        options
                    }
                }
            }
        };
        if nats.url.as_ref().is_some_and(provisioning::NatsUrl::is_tls) {
            options = options.require_tls(true);
        }
        if let Some(ca) = &nats.ca {
            options = options.add_root_certificates(ca.clone());
        }
        let client = options.connect(addresses).await.map_err(|error| connect(causes(&error)))?;
        let jetstream = ContextBuilder::new()
            .timeout(ANSWER)
            .ack_timeout(ACKNOWLEDGEMENT)
            .max_ack_inflight(UNACKNOWLEDGED)
            .backpressure_on_inflight(true)
            .build(client.clone());
        let (disk, size) = match &nats.url {
            None => (Disk::here(store.to_owned()), Space::below(store).ok().map(Space::all)),
            Some(_) => (Disk::Elsewhere, None),
        };
        let sizes = Sizes::new(size, max_bytes);
        let replicas = usize::from(nats.replicas);
        Ok(Self { client, jetstream, disk, sizes, replicas, known: Arc::default() })
    }

    fn knows(&self, stream: &str) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(stream)
    }

    /// The streams that all queues share.
    ///
    /// # Errors
    /// They are not there and cannot be made; in words.
    pub async fn prepared(&self) -> Result<(), String> {
        self.ensure(Config {
            name: LEDGER.to_owned(),
            subjects: vec![LEDGER_SUBJECT.to_owned()],
            max_bytes: self.sizes.ledger,
            // No age: a clock that jumps would empty it.
            discard: DiscardPolicy::Old,
            ..Config::default()
        })
        .await?;
        self.ensure(Config {
            name: DEAD_LETTERS.to_owned(),
            subjects: vec!["dead.>".to_owned()],
            max_bytes: self.sizes.dead,
            discard: DiscardPolicy::New,
            ..Config::default()
        })
        .await
    }

    /// A queue's stream.
    ///
    /// # Errors
    /// It is not there and cannot be made; in words.
    pub async fn queue(&self, queue: &QueueName) -> Result<(), String> {
        self.ensure(Config {
            name: stream(queue),
            subjects: vec![all_of(queue)],
            max_bytes: self.sizes.queue,
            retention: RetentionPolicy::WorkQueue,
            // A call that is accepted is never dropped for another.
            discard: DiscardPolicy::New,
            ..Config::default()
        })
        .await
    }

    /// The store of large bodies.
    ///
    /// # Errors
    /// It is not there and cannot be made; in words.
    pub async fn bodies(&self) -> Result<Bodies, String> {
        self.ensure(Config {
            name: BODIES.to_owned(),
            subjects: vec!["bodies.*".to_owned()],
            max_bytes: self.sizes.bodies,
            discard: DiscardPolicy::New,
            ..Config::default()
        })
        .await?;
        Ok(Bodies::new(self.clone()))
    }

    /// Makes a stream, or gives one that there is the limits that it should have.
    async fn ensure(&self, config: Config) -> Result<(), String> {
        if self.knows(&config.name) {
            return Ok(());
        }
        let config = Config { num_replicas: self.replicas, allow_direct: true, ..config };
        let name = config.name.clone();
        let failed = |error: &dyn std::error::Error| format!("stream {name}: {}", causes(error));
        match self.jetstream.get_stream(&name).await {
            Ok(found) => {
                let present = &found.cached_info().config;
                let wanted = Config {
                    max_bytes: config.max_bytes,
                    num_replicas: config.num_replicas,
                    max_age: config.max_age,
                    ..present.clone()
                };
                if wanted != *present
                    && let Err(error) = self.jetstream.update_stream(wanted).await
                {
                    tracing::warn!("{}; it stays as it is", failed(&error));
                }
            }
            Err(error) if is_absent(&error) => {
                self.jetstream.create_stream(config).await.map_err(|error| failed(&error))?;
                tracing::info!("stream {name} is new");
            }
            Err(error) => return Err(failed(&error)),
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        Ok(())
    }

    /// Stores a message, and gives its sequence. What the kernel has is not on the disk yet.
    ///
    /// # Errors
    /// It was not taken; in words. Where there was no answer it may be there all the same.
    pub async fn publish(&self, subject: String, payload: Bytes) -> Result<u64, NotStored> {
        let full = full(&subject);
        let published = self.jetstream.publish(subject, payload).await;
        let acknowledged = match published {
            Ok(acknowledgement) => acknowledgement.await,
            Err(error) => Err(error),
        };
        acknowledged.map(|acknowledged| acknowledged.sequence).map_err(|error| {
            // Somebody may have removed the stream: it is looked for again.
            self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
            let reason = causes(&error);
            // Its number (10077) is that of other failures, too.
            match reason.contains("maximum bytes exceeded") {
                true => NotStored { reason: full, full: true },
                false => NotStored { reason, full: false },
            }
        })
    }

    /// A message of a stream; nothing where it is gone.
    ///
    /// # Errors
    /// The stream cannot be read; in words.
    pub async fn message(&self, stream: &str, sequence: u64) -> Result<Option<StreamMessage>, String> {
        let stream = self.stream(stream).await?;
        match stream.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(causes(&error)),
        }
    }

    /// The first message of a subject from a sequence on.
    ///
    /// # Errors
    /// The stream cannot be read; in words.
    pub async fn next(
        &self,
        stream: &str,
        from: u64,
        subject: &str,
    ) -> Result<Option<StreamMessage>, String> {
        let stream = self.stream(stream).await?;
        let asked = stream.raw_message_builder().sequence(from).next_by_subject(subject);
        match asked.send().await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(causes(&error)),
        }
    }

    /// Removes a message from a stream. Whether it was there.
    ///
    /// # Errors
    /// The stream cannot be changed; in words.
    pub async fn remove(&self, stream: &str, sequence: u64) -> Result<bool, String> {
        if self.message(stream, sequence).await?.is_none() {
            return Ok(false);
        }
        match self.stream(stream).await?.delete_message(sequence).await {
            Ok(removed) => Ok(removed),
            // Somebody was faster.
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(causes(&error)),
        }
    }

    /// Removes a subject's messages.
    pub(super) async fn purge(&self, stream: &str, subject: &str) {
        let purged =
            async { self.stream(stream).await?.purge().filter(subject).await.map_err(|e| causes(&e)) };
        if let Err(error) = purged.await {
            tracing::debug!("purging {subject}: {error}");
        }
    }

    /// A stream, without asking whether it is there.
    ///
    /// # Errors
    /// Its name cannot be one; in words.
    pub async fn stream(&self, name: &str) -> Result<Stream<()>, String> {
        self.jetstream.get_stream_no_info(name).await.map_err(|error| causes(&error))
    }

    /// All queues that have a stream.
    ///
    /// # Errors
    /// JetStream does not answer; in words.
    pub async fn queues(&self) -> Result<Vec<QueueName>, String> {
        let names: Vec<String> =
            self.jetstream.stream_names().try_collect().await.map_err(|error| causes(&error))?;
        Ok(names.iter().filter_map(|name| queue_of(name)).collect())
    }

    /// Whether the server can be spoken to.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }
}

/// A message that was not taken.
#[derive(Debug)]
pub struct NotStored {
    /// Why, and what to do about it.
    pub reason: String,
    /// Whether there was no room for it.
    pub full: bool,
}

impl From<NotStored> for String {
    fn from(error: NotStored) -> Self {
        error.reason
    }
}

/// What is said where there is no room for a message of that subject.
fn full(subject: &str) -> String {
    let mut parts = subject.split('.');
    match (parts.next(), parts.next()) {
        (Some("calls"), Some(queue)) => format!(
            "queue {queue} is full: its calls have to be made first, and max_bytes in [stack.queue] of bothy.toml gives it more"
        ),
        (Some("dead"), _) => {
            "the dead letters are full: look at them with `bothyctl queue list`, and replay or purge some"
                .to_owned()
        }
        (Some("bodies"), _) => {
            format!(
                "the store of bodies larger than {LARGEST_INLINE_BYTES} bytes is full: their calls have to be made first"
            )
        }
        _ => "the ledger is full".to_owned(),
    }
}

fn is_absent(error: &async_nats::jetstream::context::GetStreamError) -> bool {
    use async_nats::jetstream::ErrorCode;
    use async_nats::jetstream::context::GetStreamErrorKind;
    matches!(error.kind(), GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn is_gone(error: &async_nats::jetstream::stream::DeleteMessageError) -> bool {
    use async_nats::jetstream::ErrorCode;
    use async_nats::jetstream::stream::DeleteMessageErrorKind;
    matches!(error.kind(), DeleteMessageErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_MESSAGE_DELETE_FAILED)
}

/// Tells how the connection is: what fails again and again in the same way once.
fn told(event: &async_nats::Event, last: &Mutex<String>) {
    use async_nats::Event;
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    match event {
        Event::Connected => {
            tracing::info!("connected to NATS");
            last.clear();
        }
        Event::Disconnected => tracing::warn!("the connection to NATS is lost; it is tried again and again"),
        Event::ServerError(_) | Event::ClientError(_) => {
            let text = event.to_string();
            if *last != text {
                tracing::warn!("NATS: {text}");
                *last = text;
            }
        }
        other => tracing::debug!("NATS: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_full_is_named_with_what_to_do() {
        for (subject, wanted) in [
            ("calls.slow.dev.f", "queue slow is full: its calls"),
            ("dead.slow.dev.f", "the dead letters are full: look"),
            ("bodies.x", "the store of bodies larger than 131072 bytes is full"),
        ] {
            assert!(full(subject).starts_with(wanted), "{subject}");
        }
    }

    #[test]
    fn sizes_fit_the_disk() {
        let small = Sizes::new(Some(256 << 20), None);
        assert_eq!(
            (small.queue, small.bodies, small.dead, small.ledger),
            (32 << 20, 32 << 20, 16 << 20, 4 << 20)
        );
        let large = Sizes::new(Some(1 << 40), Some(5));
        assert_eq!((large.queue, large.bodies, large.dead, large.ledger), (5, 4 << 30, 512 << 20, 64 << 20));
        let cluster = Sizes::new(None, None);
        assert_eq!((cluster.queue, cluster.bodies, cluster.dead, cluster.ledger), (-1, -1, -1, 64 << 20));
    }
}
