//! JSON that another program wrote: what is missing is null.

use serde_json::Value;

/// A member of an object.
pub(crate) fn of<'v>(object: &'v Value, key: &str) -> &'v Value {
    object.get(key).unwrap_or(&Value::Null)
}
