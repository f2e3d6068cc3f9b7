//! Calls that were given up: the message as it lay in its queue, with the reason before it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::frame;

/// Why a call was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// What happened, in words.
    pub reason: String,
    /// Status of the last attempt, where there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How often it was tried.
    pub attempts: u32,
    /// When, milliseconds since 1970.
    pub at: u64,
    /// Where it lay in its queue's stream.
    pub sequence: u64,
}

impl Letter {
    /// As a message, with the call's own behind it.
    pub fn encode(&self, message: &[u8]) -> Bytes {
        frame::encode(self, message)
    }

    /// Reads a message, and gives the call's own.
    pub fn decode(message: &Bytes) -> Option<(Self, Bytes)> {
        frame::decode(message).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let letter = Letter { reason: "ä".into(), status: Some(503), attempts: 3, at: 1, sequence: 9 };
        let (read, call) = Letter::decode(&letter.encode(b"call")).unwrap();
        assert_eq!((read, &call[..]), (letter, &b"call"[..]));
        for bad in [&b""[..], b"\0\0\0\x05{}", b"\xff\xff\xff\xff", b"\0\0\0\x02{}"] {
            assert!(Letter::decode(&Bytes::from_static(bad)).is_none());
        }
    }
}
