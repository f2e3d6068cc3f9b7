//! A request's query as forms write it (URL standard, "application/x-www-form-urlencoded").

/// The parameters, decoded, in their order.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what is behind the question mark.
    pub fn parse(query: Option<&str>) -> Self {
        let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
        let pairs = parts.map(|part| part.split_once('=').unwrap_or((part, "")));
        Self(pairs.map(|(name, value)| (decode(name), decode(value))).collect())
    }

    /// A parameter's last value; an empty one is as good as none.
    pub fn last(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

/// A part of a path, decoded: a plus sign is one there.
pub fn decode_path(text: &str) -> String {
    decode(&text.replace('+', "%2B"))
}

/// A percent sign that two hex digits do not follow is itself; what is no UTF-8 is made so.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let (byte, next) = match (first, hex(tail)) {
            (b'%', Some(byte)) => (byte, tail.get(2..).unwrap_or_default()),
            (b'+', _) => (b' ', tail),
            (other, _) => (*other, tail),
        };
        bytes.push(byte);
        rest = next;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The byte of the two hex digits that a text begins with.
fn hex(text: &[u8]) -> Option<u8> {
    let [high, low, ..] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_value_counts() {
        let query = Query::parse(Some("a=1&b=x%3Ay+z&a=2&c&d=&e=%zz%e2%82%ac%ff%4&&=f"));
        for (name, value) in
            [("a", Some("2")), ("b", Some("x:y z")), ("c", None), ("d", None), ("e", Some("%zz€\u{fffd}%4"))]
        {
            assert_eq!(query.last(name), value, "{name}");
        }
        assert_eq!(Query::parse(None).last("a"), None);
        assert_eq!(Query::parse(Some("a=1&a=")).last("a"), None);
    }

    #[test]
    fn paths_have_plus_signs() {
        assert_eq!(decode_path("a+b%20c%"), "a+b c%");
    }

    proptest! {
        #[test]
        fn whatever_was_encoded_is_read(value in "\\PC{1,20}") {
            let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let query = format!("x=1&name={encoded}");
            let query = Query::parse(Some(&query));
            prop_assert_eq!(query.last("name"), Some(value.as_str()));
        }

        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = Query::parse(Some(&text));
        }
    }
}
