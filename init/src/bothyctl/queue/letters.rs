//! Dead letters: asynchronous calls that were given up.

use serde_json::{Value, json};

use super::super::http::{Gateway, encoded};
use super::super::moment;
use super::super::table::{Table, bytes, span};
use super::super::value::of;
use super::{lines, plain, refused, shown, since};
use crate::error::{Error, Result};

const PATH: &str = "/system/dead-letters";
/// Letters that are asked for at once.
const PAGE: usize = 100;
/// Headers whose values are somebody's secrets.
const SECRET: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];

/// Which letters.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// Of this queue.
    pub queue: Option<String>,
    /// Of this function.
    pub function: Option<String>,
}

impl Filter {
    /// As it is said behind "dead letters".
    pub(super) fn words(&self) -> String {
        let [queue, function] = [("queue", &self.queue), ("function", &self.function)]
            .map(|(what, name)| name.as_ref().map(|name| format!(" of {what} {}", plain(name))));
        format!("{}{}", function.unwrap_or_default(), queue.unwrap_or_default())
    }
}

/// What is done to a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// It goes back into its queue.
    Replay,
    /// It goes for good.
    Purge,
}

impl Act {
    /// What is asked for.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Purge => "purge",
        }
    }

    /// What it is then.
    pub(super) fn done(self) -> &'static str {
        match self {
            Self::Replay => "replayed",
            Self::Purge => "purged",
        }
    }
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is done.
    Done,
    /// There is no such letter.
    Absent(String),
    /// It cannot be done to this one.
    Refused(String),
}

impl Outcome {
    /// For programs.
    pub(super) fn report(&self, number: u64, act: Act) -> Value {
        match self {
            Self::Done => json!({ "number": number, act.done(): true }),
            Self::Absent(why) | Self::Refused(why) => {
                json!({ "number": number, act.done(): false, "reason": why })
            }
        }
    }
}

/// How many came to what.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub done: usize,
    pub absent: usize,
    pub refused: usize,
}

impl Tally {
    /// Counts one more.
    pub(super) fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Done => self.done += 1,
            Outcome::Absent(_) => self.absent += 1,
            Outcome::Refused(_) => self.refused += 1,
        }
    }

    /// In words. Where all were meant, one that somebody else took meanwhile is not missing.
    pub(super) fn describe(&self, act: Act, all: bool) -> String {
        let mut text = format!("{} {}", self.done, act.done());
        let not = if all { self.refused } else { self.refused + self.absent };
        if not > 0 {
            text += &format!(", {not} not");
        }
        if all && self.absent > 0 {
            text += &format!(", {} gone meanwhile", self.absent);
        }
        text
    }
}

/// Asks for all of them, page by page, the oldest first.
pub(super) fn each(gateway: &Gateway, filter: &Filter, take: &mut dyn FnMut(Value)) -> Result<()> {
    let mut wanted = format!("{PATH}?limit={PAGE}");
    for (name, value) in [("queue", &filter.queue), ("function", &filter.function)] {
        if let Some(value) = value {
            wanted += &format!("&{name}={}", encoded(value));
        }
    }
    let mut last = 0;
    loop {
        let reply = gateway.ask("GET", &format!("{wanted}&after={last}"))?;
        let page: Vec<Value> = match reply.status {
            200 => serde_json::from_str(&reply.text).map_err(unreadable)?,
            404 => {
                let reason = "it keeps no dead letters; is it a Bothy machine, and not an old one?";
                return Err(gateway.failed(reason.to_owned()));
            }
            _ => return Err(refused(gateway, &reply)),
        };
        let before = last;
        for letter in page {
            let number = of(&letter, "number").as_u64();
            last = last.max(number.ok_or_else(|| Error::Answer("a dead letter has no number".to_owned()))?);
            take(letter);
        }
        // A page may be short: letters that cannot be read are left out.
        if last == before {
            return Ok(());
        }
    }
}

/// Asks for one, without what is secret.
pub(super) fn one(gateway: &Gateway, number: u64) -> Result<Value> {
    let reply = gateway.ask("GET", &format!("{PATH}/{number}"))?;
    if reply.status != 200 {
        return Err(refused(gateway, &reply));
    }
    let mut letter: Value = serde_json::from_str(&reply.text).map_err(unreadable)?;
    let headers = letter.get_mut("headers").and_then(Value::as_object_mut);
    for (name, values) in headers.into_iter().flatten() {
        if SECRET.contains(&name.to_ascii_lowercase().as_str()) {
            *values = json!(["(not shown)"]);
        }
    }
    Ok(letter)
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::Answer(format!("the answer cannot be read: {error}"))
}

/// Does it to each, and says what came of it. Ends early only where the gateway cannot do it to any.
pub(super) fn act_on(
    gateway: &Gateway,
    act: Act,
    numbers: &[u64],
    say: &mut dyn FnMut(u64, Outcome),
) -> Result<()> {
    for number in numbers {
        let reply = match act {
            Act::Replay => gateway.ask("POST", &format!("{PATH}/{number}/replay"))?,
            Act::Purge => gateway.ask("DELETE", &format!("{PATH}/{number}"))?,
        };
        let words = reply.text.trim();
        let why =
            || if words.is_empty() { format!("the gateway says {}", reply.status) } else { words.to_owned() };
        say(
            *number,
            match reply.status {
                200..300 => Outcome::Done,
                404 => Outcome::Absent(why()),
                // There is no room where it belongs, which is another one's elsewhere.
                400..500 | 507 => Outcome::Refused(why()),
                _ => return Err(refused(gateway, &reply)),
            },
        );
    }
    Ok(())
}

/// A list for people.
pub(super) fn table(letters: &[Value]) -> Table {
    let head = ["NUMBER", "FUNCTION", "QUEUE", "STATUS", "ATTEMPTS", "AGE", "REASON"];
    let mut table = Table::new(&head, &[0, 3, 4, 5]);
    for letter in letters {
        let age = of(letter, "deadAt").as_str().and_then(moment::parse);
        let age = age.map(|at| span(moment::seconds_since(at.saturating_mul(1000))));
        let text = |key: &str| shown(letter, key);
        table.row(vec![
            text("number"),
            text("function"),
            text("queue"),
            text("status"),
            text("attempts"),
            age.unwrap_or_else(|| "-".to_owned()),
            text("reason"),
        ]);
    }
    table
}

/// One letter for people.
pub(super) fn describe(letter: &Value) -> String {
    let text = |key: &str| Some(shown(letter, key)).filter(|text| text != "-");
    let query = text("query").map(|query| format!("?{query}")).unwrap_or_default();
    let mut all = lines(&[
        ("number", text("number")),
        ("call", text("callId")),
        ("function", text("function")),
        ("queue", text("queue")),
        ("reason", text("reason")),
        ("status", text("status")),
        ("attempts", text("attempts")),
        ("given up", since(letter, "deadAt")),
        ("request", Some(format!("{} {}{query}", shown(letter, "method"), shown(letter, "path")))),
        ("size", of(letter, "bytes").as_u64().map(bytes)),
        ("callback", text("callbackUrl")),
    ]);
    for (name, values) in of(letter, "headers").as_object().into_iter().flatten() {
        for value in values.as_array().into_iter().flatten().filter_map(Value::as_str) {
            all += &lines(&[("header", Some(format!("{}: {}", plain(name), plain(value))))]);
        }
    }
    all
}
