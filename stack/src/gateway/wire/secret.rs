//! A secret, as it comes in. It never goes out.

use std::borrow::Cow;

use serde::Deserialize;

use super::nullable;
use crate::base64;

/// Body of POST, PUT and DELETE. It has no Debug: the value must not be printed by accident.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Submitted {
    /// Its name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Its namespace, or empty.
    #[serde(deserialize_with = "nullable")]
    pub namespace: String,
    #[serde(deserialize_with = "nullable")]
    value: String,
    #[serde(deserialize_with = "nullable")]
    raw_value: String,
}

impl Submitted {
    /// The value's bytes: `rawValue`, which is base64, before `value`.
    pub fn value(&self) -> Result<Cow<'_, [u8]>, &'static str> {
        if self.raw_value.is_empty() {
            return Ok(Cow::Borrowed(self.value.as_bytes()));
        }
        // Tools that write base64 fold it.
        let text: Vec<u8> = self.raw_value.bytes().filter(|b| !matches!(b, b'\n' | b'\r')).collect();
        base64::decode(&text).map(Cow::Owned).ok_or("rawValue is not base64")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<Vec<u8>, &'static str> {
        let submitted: Submitted = serde_json::from_str(text).unwrap();
        submitted.value().map(Cow::into_owned)
    }

    #[test]
    fn raw_values_win() {
        assert_eq!(value(r#"{"value":"ä "}"#).unwrap(), "ä ".as_bytes());
        assert_eq!(value(r#"{"value":"x","rawValue":"AP8="}"#).unwrap(), [0, 255]);
        assert_eq!(value(r#"{"value":"x","rawValue":"e?=="}"#), Err("rawValue is not base64"));
        assert_eq!(value(r#"{"value":"x","rawValue":"eHl6\r\neHl6\n"}"#).unwrap(), b"xyzxyz");
        for without in [r#"{"value":"x","rawValue":null}"#, r#"{"value":"x","rawValue":""}"#] {
            assert_eq!(value(without).unwrap(), b"x");
        }
        assert_eq!(value("{}").unwrap(), b"");
    }
}
