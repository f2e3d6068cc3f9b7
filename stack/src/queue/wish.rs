//! What gateway and workers tell each other beside the streams. Nothing of it has to arrive: it only saves waiting.

use serde::{Deserialize, Serialize};

use super::ledger::Place;

/// Subject: there are calls for a function; the message is the subject of its [`Route`](super::Route).
pub const WAKE: &str = "queue.wake";
/// Subject of a request: whoever has that call running says so, and nobody else answers.
pub const RUNNING: &str = "queue.running";
/// Subject: whoever has that call ends it.
pub const CANCEL: &str = "queue.cancel";

/// Which call a message is about.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    queue: String,
    sequence: u64,
}

impl Wish {
    /// About the call at that place, as a message.
    pub fn encode(place: &Place) -> Vec<u8> {
        let wish = Self { queue: place.queue.to_string(), sequence: place.sequence };
        // A string and a number always serialise.
        serde_json::to_vec(&wish).unwrap_or_default()
    }

    /// Reads a message.
    pub fn decode(message: &[u8]) -> Option<Place> {
        let wish: Self = serde_json::from_slice(message).ok()?;
        Some(Place { queue: wish.queue.parse().ok()?, sequence: wish.sequence })
    }
}
