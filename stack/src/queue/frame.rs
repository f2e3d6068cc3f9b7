//! How messages are written that are a head in JSON and something behind it: the head's length, the head, the rest as it is.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that tell how long the head is, the highest first.
const LENGTH: usize = 4;

/// Puts a message together.
pub fn encode(head: &impl Serialize, rest: &[u8]) -> Bytes {
    // Strings, numbers and maps with text keys always serialise.
    let head = serde_json::to_vec(head).unwrap_or_default();
    let mut bytes = BytesMut::with_capacity(LENGTH + head.len() + rest.len());
    bytes.put_u32(u32::try_from(head.len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(rest);
    bytes.freeze()
}

/// Takes a message apart.
///
/// # Errors
/// What it is not, in one line.
pub fn decode<T: DeserializeOwned>(message: &Bytes) -> Result<(T, Bytes), String> {
    let length = message.first_chunk::<LENGTH>().ok_or("it is shorter than four bytes")?;
    let end = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX).saturating_add(LENGTH);
    let head = message.get(LENGTH..end).ok_or("its head is cut off")?;
    let head = serde_json::from_slice(head).map_err(|error| format!("its head: {error}"))?;
    Ok((head, message.slice(end..)))
}
