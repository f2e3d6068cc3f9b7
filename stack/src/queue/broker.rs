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
use async_nats::{Client, ConnectOptions, Subject};
use bytes::Bytes;
use futures_util::TryStreamExt;
use provisioning::{Login, Nats, QueueName};

use super::bodies::{Bodies, causes};
use super::disk::Disk;
use super::not_stored::NotStored;
use super::sizes::Sizes;
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
        let ledger = |config| Config {
            subjects: vec![LEDGER_SUBJECT.to_owned()],
            max_bytes: self.sizes.ledger,
            // No age: a clock that jumps would empty it.
            discard: DiscardPolicy::Old,
            ..config
        };
        self.ensure(LEDGER, ledger).await?;
        let dead =
            |config| Config { subjects: vec!["dead.>".to_owned()], max_bytes: self.sizes.dead, ..config };
        self.ensure(DEAD_LETTERS, dead).await
    }

    /// A queue's stream.
    ///
    /// # Errors
    /// It is not there and cannot be made; in words.
    pub async fn queue(&self, queue: &QueueName) -> Result<(), String> {
        let waiting = |config| Config {
            subjects: vec![all_of(queue)],
            max_bytes: self.sizes.queue,
            retention: RetentionPolicy::WorkQueue,
            ..config
        };
        self.ensure(&stream(queue), waiting).await
    }

    /// The store of large bodies.
    ///
    /// # Errors
    /// It is not there and cannot be made; in words.
    pub async fn bodies(&self) -> Result<Bodies, String> {
        let pieces =
            |config| Config { subjects: vec!["bodies.*".to_owned()], max_bytes: self.sizes.bodies, ..config };
        self.ensure(BODIES, pieces).await?;
        Ok(Bodies::new(self.clone()))
    }

    /// Makes a stream, or gives one that there is the limits that it should have.
    async fn ensure(&self, name: &str, with: impl FnOnce(Config) -> Config) -> Result<(), String> {
        if self.knows(name) {
            return Ok(());
        }
        let config = with(Config {
            name: name.to_owned(),
            num_replicas: self.replicas,
            allow_direct: true,
            // What was accepted is never dropped for another, unless the stream is one that says so.
            discard: DiscardPolicy::New,
            ..Config::default()
        });
        let failed = |error: &dyn std::error::Error| format!("stream {name}: {}", causes(error));
        match self.jetstream.get_stream(name).await {
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
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Ok(())
    }

    /// Stores a message, and gives its sequence. What the kernel has is not on the disk yet.
    ///
    /// # Errors
    /// It was not taken; in words. Where there was no answer it may be there all the same.
    pub async fn publish(&self, subject: String, payload: Bytes) -> Result<u64, NotStored> {
        let subject = Subject::from(subject);
        let published = self.jetstream.publish(subject.clone(), payload).await;
        let acknowledged = match published {
            Ok(acknowledgement) => acknowledgement.await,
            Err(error) => Err(error),
        };
        acknowledged.map(|acknowledged| acknowledged.sequence).map_err(|error| {
            let refused = NotStored::new(&subject, causes(&error));
            if !refused.full {
                // Somebody may have removed the stream: it is looked for again.
                self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
            refused
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
