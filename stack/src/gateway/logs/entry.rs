//! From an entry as journalctl prints it to a line of the answer.

use serde::{Deserialize, Serialize};

use crate::key::Key;
use crate::object::Object;
use crate::timestamp;

/// One entry, read.
#[derive(Debug)]
pub struct Told {
    /// A line of the answer, its newline included.
    pub line: Vec<u8>,
    /// Its place in the journal.
    pub cursor: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "__CURSOR")]
    cursor: Option<String>,
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    micros: String,
    #[serde(rename = "MESSAGE", default)]
    message: Field,
    #[serde(rename = "BOTHY_REPLICA", default)]
    replica: Field,
}

/// A field's value as journalctl's JSON has it (systemd's docs, JOURNAL_EXPORT_FORMATS.md).
#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Field {
    #[default]
    Nothing,
    Text(String),
    /// What is no UTF-8, or holds control characters: colours, for one.
    Bytes(Vec<u8>),
    /// It was there more than once.
    Several(Vec<Field>),
}

impl Field {
    fn text(self) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Text(text) => text,
            Self::Bytes(bytes) => match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
            },
            Self::Several(fields) => fields.into_iter().map(Self::text).collect::<Vec<_>>().join("\n"),
        }
    }
}

/// OpenFaaS's log message.
#[derive(Serialize)]
struct Message<'a> {
    name: &'a str,
    namespace: &'a str,
    instance: String,
    timestamp: String,
    text: String,
}

/// Reads what journalctl printed; an error says why it cannot be read.
pub fn read(key: &Key, line: &[u8]) -> Result<Told, String> {
    let Object(entry): Object<Entry> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let micros = entry.micros.parse::<u64>();
    let micros = micros.map_err(|error| format!("its time {:?}: {error}", entry.micros))?;
    let replica = entry.replica.text();
    let message = Message {
        name: key.name.as_str(),
        namespace: key.namespace.as_str(),
        // Its container's name.
        instance: format!("{}.{replica}", key.name),
        timestamp: timestamp::rfc3339_micros(micros),
        text: entry.message.text(),
    };
    let mut line = serde_json::to_vec(&message).map_err(|error| error.to_string())?;
    line.push(b'\n');
    Ok(Told { line, cursor: entry.cursor })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn key() -> Key {
        Key::new("f", "").unwrap()
    }

    fn text(message: &Value) -> String {
        let entry = json!({"__REALTIME_TIMESTAMP": "1", "MESSAGE": message}).to_string();
        let line = read(&key(), entry.as_bytes()).unwrap().line;
        serde_json::from_slice::<Value>(&line).unwrap()["text"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_line() {
        let entry = json!({"__REALTIME_TIMESTAMP": "1795446000250000", "MESSAGE": "a \"b\"\n", "BOTHY_REPLICA": "3",
                           "__CURSOR": "s=1", "_BOOT_ID": "x"});
        let told = read(&key(), entry.to_string().as_bytes()).unwrap();
        assert_eq!(told.cursor.as_deref(), Some("s=1"));
        assert_eq!(
            String::from_utf8(told.line).unwrap(),
            "{\"name\":\"f\",\"namespace\":\"openfaas-fn\",\"instance\":\"f.3\",\
             \"timestamp\":\"2026-11-23T15:00:00.25Z\",\"text\":\"a \\\"b\\\"\\n\"}\n"
        );
    }

    #[test]
    fn every_form_of_a_message() {
        assert_eq!(text(&json!("x")), "x");
        assert_eq!(text(&json!("")), "");
        assert_eq!(text(&json!([27, 91, 51, 49, 109])), "\u{1b}[31m");
        assert_eq!(text(&json!([111, 107, 255])), "ok\u{fffd}");
        assert_eq!(text(&json!([])), "");
        assert_eq!(text(&json!(null)), "");
        assert_eq!(text(&json!(["a", [98, 255]])), "a\nb\u{fffd}");
        let large = "é".repeat(2 << 20);
        assert_eq!(text(&json!(large)), large);
    }

    #[test]
    fn what_is_no_entry() {
        for bad in [
            "",
            "{}",
            "[]",
            r#"["s=1", "1", "a", "3"]"#,
            "nonsense",
            r#"{"__REALTIME_TIMESTAMP":"soon","MESSAGE":""}"#,
            r#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":[1000]}"#,
            r#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":{}}"#,
        ] {
            assert!(read(&key(), bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_byte_breaks_a_line(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(text(&json!(bytes)), String::from_utf8_lossy(&bytes));
            let entry = json!({"__REALTIME_TIMESTAMP": "1", "MESSAGE": bytes}).to_string();
            let line = read(&key(), entry.as_bytes()).unwrap().line;
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        }

        #[test]
        fn never_panics(line in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&key(), &line);
        }
    }
}
