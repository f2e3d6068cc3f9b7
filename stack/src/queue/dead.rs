//! Calls that were given up: the message as it lay in its queue, with the reason before it.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Bytes that tell how long the letter is.
const LENGTH: usize = 4;

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
        // Strings and numbers always serialise.
        let head = serde_json::to_vec(self).unwrap_or_default();
        let mut bytes = BytesMut::with_capacity(LENGTH + head.len() + message.len());
        bytes.put_u32(u32::try_from(head.len()).unwrap_or(u32::MAX));
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(message);
        bytes.freeze()
    }

    /// Reads a message, and gives the call's own.
    pub fn decode(message: &Bytes) -> Option<(Self, Bytes)> {
        let length = usize::try_from(u32::from_be_bytes(*message.first_chunk::<LENGTH>()?)).ok()?;
        let end = length.checked_add(LENGTH)?;
        let letter = serde_json::from_slice(message.get(LENGTH..end)?).ok()?;
        Some((letter, message.slice(end..)))
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
