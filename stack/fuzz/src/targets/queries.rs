//! A request's query.

use crate::gateway::query::Query;
use crate::registry::location::escape;

pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let query = Query::parse(Some(text));
    let pairs: Vec<(String, String)> = text
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect();
    for (name, _) in &pairs {
        let last = pairs.iter().rfind(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(query.last(name), last.filter(|value| !value.is_empty()), "{name:?}");
    }
    // Whatever was encoded comes back.
    let name = escape(text);
    let all = format!("{name}=x&{name}=&{name}={name}");
    let found = Query::parse(Some(&all));
    assert_eq!(found.last(text), Some(text).filter(|text| !text.is_empty()));
}

/// The same from the other end: cut at the percent signs.
fn decoded(text: &str) -> String {
    let spaced = text.replace('+', " ");
    let mut parts = spaced.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits {
            Some(two) => {
                bytes.push(u8::from_str_radix(two, 16).unwrap());
                bytes.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => {
                bytes.push(b'%');
                bytes.extend_from_slice(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
