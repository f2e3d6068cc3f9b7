//! One asynchronous call.

use serde_json::Value;

use super::super::http::{Gateway, encoded};
use super::{lines, refused, shown, since};
use crate::error::{Error, Result};

/// Asks how far it is.
pub(super) fn status(gateway: &Gateway, id: &str) -> Result<Value> {
    let reply = gateway.ask("GET", &path(id))?;
    if reply.status != 200 {
        return Err(refused(gateway, &reply));
    }
    serde_json::from_str(&reply.text)
        .map_err(|error| Error::Answer(format!("the answer cannot be read: {error}")))
}

/// Sees to it that it is not made, or not again.
pub(super) fn cancel(gateway: &Gateway, id: &str) -> Result<()> {
    let reply = gateway.ask("DELETE", &path(id))?;
    if (200..300).contains(&reply.status) { Ok(()) } else { Err(refused(gateway, &reply)) }
}

fn path(id: &str) -> String {
    format!("/system/calls/{}", encoded(id))
}

/// For people.
pub(super) fn describe(call: &Value) -> String {
    let text = |key: &str| Some(shown(call, key)).filter(|text| text != "-");
    lines(&[
        ("call", text("callId")),
        ("state", text("state")),
        ("since", since(call, "since")),
        ("function", text("function")),
        ("queue", text("queue")),
        ("attempts", text("attempts")),
        ("status", text("status")),
        ("next attempt", text("nextRetry")),
        ("dead letter", text("deadLetter")),
        ("reason", text("reason")),
    ])
}
