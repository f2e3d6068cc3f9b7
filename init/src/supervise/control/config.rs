//! The configuration in force, value by value, with where each comes from.

use std::time::Duration;

use provisioning::Stack;
use serde_json::{Value, json};

use super::{Desk, Stop};
use crate::bothyctl::value::of;
use crate::supervise::configuration::Effective;

/// What stands for a secret.
const MASK: &str = "********";

/// The report.
pub(super) fn report(desk: &Desk, reveal: bool) -> Result<Value, Stop> {
    let effective = desk.effective.borrow();
    let effective = effective.as_ref().ok_or_else(too_early)?;
    let from = from(effective);
    let mut values = Vec::new();
    let table: toml::Table = toml::from_str(&effective.text)
        .map_err(|error| Stop::Error(format!("read the configuration: {error}")))?;
    flatten("", &toml::Value::Table(table), &mut |key, value| {
        let value = if is_secret(key) && !reveal { json!(MASK) } else { value };
        values.push(json!({ "key": key, "value": value, "from": from }));
    });
    let mut add = |key: &str, value: Value, from: &str| {
        if !values.iter().any(|known| of(known, "key") == key) {
            values.push(json!({ "key": key, "value": value, "from": from }));
        }
    };
    add("hostname", json!(desk.board.status().hostname), "this machine");
    add("gateway.user", json!(effective.config.gateway.user), "default");
    add("gateway.provider_name", json!(effective.config.gateway.provider.as_str()), "default");
    add("gateway.timeout", json!(effective.config.gateway.timeout.to_string()), "default");
    if let Some(tls) = &effective.config.gateway.tls {
        add("gateway.tls_listen", json!(tls.listen.to_string()), "default");
        add("gateway.tls_only", json!(tls.only), "default");
    }
    add("egress.world", json!(effective.config.egress.world), "default");
    add("egress.nats", json!(effective.config.egress.nats), "default");
    for (key, value) in stack(&effective.config.stack) {
        add(&format!("stack.{key}"), value, "default");
    }
    if let Some((_, password)) = desk.made.borrow().as_ref() {
        add("gateway.password", if reveal { json!(password) } else { json!(MASK) }, "made on this machine");
    }
    Ok(json!({ "source": effective.source, "from": from, "problem": effective.problem, "values": values }))
}

/// What the stack's services go by, whoever says so.
fn stack(stack: &Stack) -> [(&'static str, Value); 10] {
    let Stack { queue, idler, .. } = stack;
    let seconds = |time: Duration| json!(format!("{}s", time.as_secs()));
    let codes: Vec<String> = queue.retries.codes.iter().map(ToString::to_string).collect();
    [
        ("queue.max_inflight", json!(queue.max_inflight)),
        ("queue.ack_wait", seconds(queue.ack_wait)),
        ("queue.max_retry_attempts", json!(queue.retries.attempts)),
        ("queue.initial_retry_wait", seconds(queue.retries.initial_wait)),
        ("queue.max_retry_wait", seconds(queue.retries.max_wait)),
        ("queue.retry_http_codes", json!(codes.join(","))),
        ("queue.backoff", json!(queue.retries.backoff.as_str())),
        ("queue.max_body", json!(queue.max_body.to_string())),
        ("idler.inactivity_duration", seconds(idler.inactivity)),
        ("idler.reconcile_interval", seconds(idler.interval)),
    ]
}

/// The gateway's user and password.
pub(super) fn credentials(desk: &Desk) -> Result<Value, Stop> {
    let effective = desk.effective.borrow();
    let effective = effective.as_ref().ok_or_else(too_early)?;
    let gateway = &effective.config.gateway;
    let (password, from) = match (&gateway.password, desk.made.borrow().as_ref()) {
        (Some(secret), _) => (secret.expose().to_owned(), from(effective)),
        (None, Some((_, made))) => (made.clone(), "made on this machine"),
        (None, None) => {
            return Err(Stop::Error("the gateway has no password; see `bothyctl status`".to_owned()));
        }
    };
    Ok(json!({ "user": gateway.user, "password": password, "from": from }))
}

fn too_early() -> Stop {
    Stop::Error("the configuration is not read yet; try again in a moment".to_owned())
}

fn from(effective: &Effective) -> &'static str {
    match effective.source {
        "boot" => "bothy.toml on the boot partition",
        "last-good" => "the last good bothy.toml",
        _ => "default",
    }
}

/// Passwords, and a function's environment, where people put their own.
fn is_secret(key: &str) -> bool {
    let parts: Vec<&str> = key.split('.').collect();
    parts.last().is_some_and(|last| last.contains("password")) || parts.contains(&"environment")
}

/// Every value that is no table, under its full name.
fn flatten(key: &str, value: &toml::Value, found: &mut impl FnMut(&str, Value)) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(&key, value, found);
            }
        }
        value => found(key, serde_json::to_value(value).unwrap_or_default()),
    }
}
