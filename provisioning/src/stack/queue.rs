//! The queues of asynchronous calls.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Retries;
use crate::Invalid;

/// `[stack.queue]`: what is the same for all queues. The names are those of OpenFaaS's queue-worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// How many calls of one queue this machine makes at a time.
    pub max_inflight: u32,
    /// A call whose worker is silent for so long is given to another.
    pub ack_wait: Duration,
    /// When a call that failed is made again.
    pub retries: Retries,
    /// The largest body of a call, in bytes.
    pub max_body: u64,
    /// The disk that one queue may take, in bytes, never less than one body; without it, a share of the data partition.
    pub max_bytes: Option<u64>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            max_inflight: 64,
            ack_wait: Duration::from_secs(60),
            retries: Retries::default(),
            max_body: 64 << 20,
            max_bytes: None,
        }
    }
}

/// `[stack.queues.NAME]`: what is different for one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NamedQueue {
    /// How many of its calls this machine makes at a time, where that is its own.
    pub max_inflight: Option<u32>,
}

/// A queue's name: small letters, digits, `-` and `_`, at most 63 characters.
///
/// It becomes the name of a stream and a part of subjects in NATS, where a dot would divide it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName(String);

/// A DNS label's limit, as for the other names.
const LONGEST: usize = 63;

impl QueueName {
    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for QueueName {
    /// The queue of functions that name none.
    fn default() -> Self {
        Self("faas-request".to_owned())
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for QueueName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for QueueName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.len() > LONGEST {
            return Err(Invalid(format!("is {} characters long, expected at most {LONGEST}", text.len())));
        }
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if text.is_empty() || !text.bytes().all(fits) {
            return Err(Invalid(
                "is not a queue's name, expected small letters, digits, `-` and `_`".to_owned(),
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(QueueName::default().as_str().parse(), Ok(QueueName::default()));
        for good in ["a", "slow-queue", "slow_queue", "7", "-", &"x".repeat(63)] {
            assert_eq!(good.parse::<QueueName>().unwrap().as_str(), good);
        }
        for bad in ["", "Slow", "a.b", "a b", "a*", ">", "a/b", "ä", "a\0", &"x".repeat(64)] {
            assert!(bad.parse::<QueueName>().is_err(), "{bad}");
        }
    }
}
