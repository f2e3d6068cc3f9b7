//! Dead letters: why a call was given up, and its message behind it. An input is a letter, and a head without its length.

use bytes::Bytes;
use serde_json::Value;
use stack::queue::{Letter, Payload};

const CALL: &[u8] = b"\0\0\0\x02{}call";

pub fn check(data: &[u8]) {
    letter(data);
    letter(&[&(data.len() as u32).to_be_bytes()[..], data, CALL].concat());
}

fn letter(data: &[u8]) {
    let Some((letter, call)) = Letter::decode(&Bytes::copy_from_slice(data)) else { return };
    let (head, behind) = data[4..].split_at(u32::from_be_bytes(data[..4].try_into().unwrap()) as usize);
    assert_eq!(call, behind);
    // Whatever the call is, the letter is one.
    let _ = Payload::decode(&call);
    assert_eq!(Letter::decode(&letter.encode(&call)), Some((letter.clone(), call)));
    let Ok(Value::Object(fields)) = serde_json::from_slice(head) else { return };
    assert_eq!(letter.reason, fields["reason"].as_str().unwrap());
    let number = |name: &str| fields.get(name).and_then(Value::as_u64);
    assert_eq!(
        (
            letter.status.map(u64::from),
            Some(u64::from(letter.attempts)),
            Some(letter.at),
            Some(letter.sequence)
        ),
        (number("status"), number("attempts"), number("at"), number("sequence"))
    );
}
