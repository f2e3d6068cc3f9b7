//! Asynchronous calls: what was promised of them is that each comes to an end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use image::qemu::{Gateway, Running};
use serde_json::Value;

/// How long it may take until a call is accepted.
const ACCEPTED: Duration = Duration::from_secs(120);
/// How long a call may be in no queue before the gateway has read how it ended.
const ON_ITS_WAY: Duration = Duration::from_secs(30);
/// Pause between two questions.
const AGAIN: Duration = Duration::from_millis(200);

/// Has a function called later; gives the call's identifier. Whoever asks too soon is told to come again.
///
/// # Errors
/// No call was accepted in time.
pub fn call_later(running: &mut Running, gateway: &Gateway, function: &str, body: &str) -> Result<String> {
    let what = format!("a call of {function} is accepted");
    let ask = || gateway.call_later(function, body);
    let (answer, _) = running.answer(&what, ACCEPTED, ask, |answer| answer.status == 202)?;
    ensure!(!answer.call_id.is_empty(), "an accepted call has no identifier");
    Ok(answer.call_id)
}

/// Waits until a call that was accepted is done or given up; gives what the gateway tells of it then.
///
/// # Errors
/// The gateway does not know it, or not what became of it, or it has no end in time.
pub fn end_of_call(running: &mut Running, gateway: &Gateway, id: &str, limit: Duration) -> Result<Value> {
    let began = Instant::now();
    let mut unknown = None;
    loop {
        let asked = gateway.call_status(id);
        let last = match asked {
            Ok(answer) if answer.status == 200 => {
                let call: Value = serde_json::from_str(&answer.body).context("a call is no JSON")?;
                match call["state"].as_str().unwrap_or_default() {
                    "done" | "dead" => return Ok(call),
                    "cancelled" => bail!("call {id} was cancelled, and not by us: {call}"),
                    "unknown" => {
                        let since = *unknown.get_or_insert_with(Instant::now);
                        ensure!(since.elapsed() < ON_ITS_WAY, "nothing is known of the end of {call}");
                    }
                    _ => unknown = None,
                }
                answer.body
            }
            Ok(answer) => {
                ensure!(answer.status != 404, "call {id} is lost: {}", answer.body);
                format!("{} {}", answer.status, answer.body)
            }
            Err(error) => error.to_string(),
        };
        running.check()?;
        ensure!(began.elapsed() < limit, "call {id} has no end after {} s: {last}", limit.as_secs());
        std::thread::sleep(AGAIN);
    }
}

/// Waits until a call is done; its function must have answered with 200.
///
/// # Errors
/// As [`end_of_call`]; or it ended otherwise.
pub fn call_is_done(running: &mut Running, gateway: &Gateway, id: &str, limit: Duration) -> Result<Value> {
    let call = end_of_call(running, gateway, id, limit)?;
    ensure!(call["state"] == "done" && call["status"] == 200, "a call came to another end: {call}");
    Ok(call)
}
