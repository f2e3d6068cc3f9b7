//! The API's JSON (OpenFaaS's provider types). Unknown fields are ignored, `null` is as good as absent.

mod alert;
mod function;
mod info;
mod namespace;
mod secret;

use std::io::Read;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

pub use alert::{Alert, Webhook};
pub use function::{Deletion, Deployment, Scaling, Status};
pub use info::Info;
pub use namespace::{FunctionNamespace, check as check_namespace, is_marked};
pub use secret::Submitted;

use crate::object::Object;

/// Reads a request's body, which is an object.
pub fn parse<T: DeserializeOwned>(body: impl Read) -> serde_json::Result<T> {
    serde_json::from_reader(body).map(|Object(body)| body)
}

/// Reads `null` as if nothing were there.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
