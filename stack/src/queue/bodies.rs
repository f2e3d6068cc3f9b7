//! Bodies that are too large for a message: in pieces, in a stream of their own, each body under one subject. (The object store
//! of NATS's client keeps a word about each body for ever, and what of an upload broke off is found by nobody.)

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt, stream};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::broker::Broker;
use super::subject::BODIES;
use crate::upstream::BodyError;

/// Larger bodies go into the store. Messages are read into memory whole, several at a time.
pub const LARGEST_INLINE_BYTES: usize = 128 << 10;

/// Bytes of a piece; the last one of a body has fewer, and may have none.
const PIECE_BYTES: usize = 128 << 10;

/// The store.
#[derive(Clone)]
pub struct Bodies(Broker);

impl Bodies {
    pub(super) fn new(broker: Broker) -> Self {
        Self(broker)
    }

    /// Keeps a body under a name that is its own, and gives its size in bytes. What is there of one that broke off is for the
    /// caller to remove.
    ///
    /// # Errors
    /// It could not be read, or the store did not take it; in words.
    pub async fn put(&self, name: &str, body: &mut (impl AsyncRead + Unpin)) -> Result<u64, String> {
        let mut size = 0;
        loop {
            let mut piece = BytesMut::with_capacity(PIECE_BYTES);
            while piece.len() < PIECE_BYTES {
                let left = (PIECE_BYTES - piece.len()) as u64;
                let mut part = (&mut *body).take(left);
                if part.read_buf(&mut piece).await.map_err(|error| error.to_string())? == 0 {
                    break;
                }
            }
            let last = piece.len() < PIECE_BYTES;
            size += piece.len() as u64;
            self.0.publish(subject(name), piece.freeze()).await?;
            if last {
                return Ok(size);
            }
        }
    }

    /// A body of that size, piece by piece as they are asked for.
    ///
    /// # Errors
    /// The pieces': the store cannot be read, or one of them is gone.
    pub fn get(&self, name: &str, size: u64) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + use<> {
        let (broker, subject) = (self.0.clone(), subject(name));
        stream::try_unfold((1, size), move |(from, left)| {
            let (broker, subject) = (broker.clone(), subject.clone());
            async move {
                if left == 0 {
                    return Ok(None);
                }
                let found = broker.next(BODIES, from, &subject).await.map_err(BodyError::from)?;
                let message = found.ok_or_else(|| BodyError::from("a piece of the body is gone"))?;
                let left = left.saturating_sub(message.payload.len() as u64);
                Ok(Some((message.payload, (message.sequence + 1, left))))
            }
        })
        .into_stream()
    }

    /// Whether there is a body of that name.
    ///
    /// # Errors
    /// The store cannot be read; in words.
    pub async fn has(&self, name: &str) -> Result<bool, String> {
        Ok(self.0.next(BODIES, 1, &subject(name)).await?.is_some())
    }

    /// Removes a body; one that is not there is removed.
    pub async fn remove(&self, name: &str) {
        self.0.purge(BODIES, &subject(name)).await;
    }
}

/// Subject of a body's pieces.
pub(super) fn subject(name: &str) -> String {
    format!("bodies.{name}")
}

/// The name in a subject.
pub(super) fn name_of(subject: &str) -> Option<&str> {
    subject.strip_prefix("bodies.")
}

/// An error with what caused it, in one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text.push_str(&format!(": {words}"));
        }
        cause = next.source();
    }
    text
}
