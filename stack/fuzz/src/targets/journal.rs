//! An entry as journalctl prints it, and the line that a client gets.

use serde_json::Value;

use crate::gateway::logs::entry::read;
use crate::key::Key;
use crate::timestamp;

/// The first moment of the year 10000, in microseconds.
const END: u64 = 253_402_300_800_000_000;

pub fn check(data: &[u8]) {
    let key = Key::new("f", "").unwrap();
    let Ok(told) = read(&key, data) else { return };
    // One line, whatever the function wrote.
    let (end, line) = told.line.split_last().unwrap();
    assert!(*end == b'\n' && !line.contains(&b'\n'));
    // What is skipped need not be text.
    let Ok(entry) = serde_json::from_slice::<Value>(data) else { return };
    let line: Value = serde_json::from_slice(line).unwrap();
    assert_eq!(line.as_object().map(|fields| fields.len()), Some(5));
    assert_eq!((line["name"].as_str(), line["namespace"].as_str()), (Some("f"), Some("openfaas-fn")));
    assert!(line["instance"].as_str().is_some_and(|name| name.starts_with("f.")));
    assert_eq!(line["text"].as_str(), Some(text(&entry["MESSAGE"]).as_str()));
    assert_eq!(told.cursor.as_deref(), entry["__CURSOR"].as_str());
    let micros: u64 = entry["__REALTIME_TIMESTAMP"].as_str().unwrap().parse().unwrap();
    if micros < END {
        assert_eq!(timestamp::parse(line["timestamp"].as_str().unwrap()), i64::try_from(micros).ok());
    }
}

/// systemd's JOURNAL_EXPORT_FORMATS.md: a text, or its bytes as numbers, or a list of either.
fn text(field: &Value) -> String {
    let bytes = |list: &[Value]| {
        list.iter().map(|byte| u8::try_from(byte.as_u64()?).ok()).collect::<Option<Vec<u8>>>()
    };
    match field {
        Value::String(text) => text.clone(),
        Value::Array(list) => match bytes(list) {
            Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            None => list.iter().map(text).collect::<Vec<_>>().join("\n"),
        },
        _ => String::new(),
    }
}
