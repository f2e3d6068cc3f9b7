//! Calls as they lie in a queue: of this version, of another one, or of whoever reaches NATS. An input is a message, and a
//! head without its length.

use bytes::Bytes;
use hyper::header::HeaderMap;
use serde_json::Value;
use stack::queue::Payload;

const BODY: &[u8] = b"\0body";

pub fn check(data: &[u8]) {
    message(data);
    message(&framed(data));
}

/// With its length before it, and a body behind it.
fn framed(head: &[u8]) -> Vec<u8> {
    [&(head.len() as u32).to_be_bytes()[..], head, BODY].concat()
}

fn message(data: &[u8]) {
    let Ok(payload) = Payload::decode(&Bytes::copy_from_slice(data)) else { return };
    let (head, body) = data[4..].split_at(u32::from_be_bytes(data[..4].try_into().unwrap()) as usize);
    assert_eq!(payload.body, body);
    let written = payload.encode();
    let again = Payload::decode(&written).unwrap();
    assert_eq!(again, payload);
    assert_eq!(again.encode(), written);
    // What is skipped need not be text, and a list can stand for an object.
    let Ok(Value::Object(fields)) = serde_json::from_slice(head) else { return };
    assert_eq!(payload.call.id, fields["id"].as_str().unwrap());
    assert_eq!(payload.call.stored.as_deref(), fields.get("stored").and_then(Value::as_str));
    same(&payload.call.headers(), fields["headers"].as_array().unwrap());
}

/// Each pair that is a header is one, in its order; no other is.
fn same(headers: &HeaderMap, pairs: &[Value]) {
    let mut left: Vec<(String, Vec<u8>)> = pairs.iter().filter_map(header).collect();
    assert_eq!(headers.len(), left.len());
    for (name, value) in headers {
        let at = left.iter().position(|(one, _)| one == name.as_str()).unwrap();
        assert_eq!(left.remove(at).1, value.as_bytes(), "{name}");
    }
}

/// RFC 9110, sections 5.1 and 5.5, character by character.
fn header(pair: &Value) -> Option<(String, Vec<u8>)> {
    let (name, value) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let value: Option<Vec<u8>> = value.chars().map(|c| u8::try_from(c).ok()).collect();
    let fits = |value: &Vec<u8>| value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 127));
    let named = !name.is_empty() && name.chars().all(token);
    named.then(|| Some((name.to_ascii_lowercase(), value.filter(fits)?)))?
}
