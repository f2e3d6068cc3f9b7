//! JSON's objects.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A struct that comes as an object. serde's own readers of structs take a list of the fields' values as well, which nobody
/// means.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Pair {
        one: String,
        inner: Option<Object<Inner>>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        x: i32,
    }

    #[test]
    fn objects_and_nothing_else() {
        let read = |text: &str| serde_json::from_str::<Object<Pair>>(text).map(|pair| pair.0);
        let pair = read(r#"{"one": "a", "inner": {"x": 7}, "other": []}"#).unwrap();
        assert_eq!((pair.one.as_str(), pair.inner.map(|Object(inner)| inner.x)), ("a", Some(7)));
        for bad in [r#"["a"]"#, "[]", "null", r#""a""#, r#"{"inner": [7]}"#, r#"{"one": 1}"#] {
            let error = read(bad).unwrap_err();
            assert_eq!(error.line(), 1, "{error}");
        }
        assert!(read(r#"["a"]"#).unwrap_err().to_string().contains("expected an object"));
    }
}
