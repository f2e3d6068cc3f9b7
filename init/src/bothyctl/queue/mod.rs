//! `bothyctl queue`: asynchronous calls, through the gateway's own API.

mod call;
mod letters;
mod progress;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use serde_json::{Value, json};

use super::arguments::{Letters, QueueCommand};
use super::http::{Gateway, Reply};
use super::table::span;
use super::transport::Machine;
use super::value::of;
use super::{confirmation, moment, print_json};
use crate::error::{Error, Result};
use letters::{Act, Filter, Outcome, Tally};
use progress::Progress;

pub(super) fn run(machine: &Machine, command: QueueCommand, json: bool) -> Result<ExitCode> {
    let gateway = machine.gateway()?;
    match command {
        QueueCommand::List { queue, function } => list(&gateway, &Filter { queue, function }, json),
        QueueCommand::Show { number } => {
            let letter = letters::one(&gateway, number)?;
            if json {
                print_json(&letter);
            } else {
                print!("{}", letters::describe(&letter));
            }
            Ok(ExitCode::SUCCESS)
        }
        QueueCommand::Replay(letters) => carry_out(&gateway, Act::Replay, letters, true, json),
        QueueCommand::Purge { letters, yes } => carry_out(&gateway, Act::Purge, letters, yes, json),
        QueueCommand::Status { call_id } => {
            let call = call::status(&gateway, &call_id)?;
            if json {
                print_json(&call);
            } else {
                print!("{}", call::describe(&call));
            }
            Ok(ExitCode::SUCCESS)
        }
        QueueCommand::Cancel { call_id } => {
            call::cancel(&gateway, &call_id)?;
            if json {
                print_json(&json!({ "callId": call_id, "cancelled": true }));
            } else {
                println!("call {} is cancelled", plain(&call_id));
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn list(gateway: &Gateway, filter: &Filter, json: bool) -> Result<ExitCode> {
    let mut found = Vec::new();
    letters::each(gateway, filter, &mut |letter| {
        if json {
            print_json(&letter);
        } else {
            found.push(letter);
        }
    })?;
    if found.is_empty() && !json {
        println!("no dead letters{}", filter.words());
    } else if !json {
        letters::table(&found).print();
    }
    Ok(ExitCode::SUCCESS)
}

/// Does it to each letter, whatever came of the others, and says what came of it.
fn carry_out(gateway: &Gateway, act: Act, letters: Letters, yes: bool, json: bool) -> Result<ExitCode> {
    let Letters { mut numbers, all, queue, function } = letters;
    if all {
        let filter = Filter { queue, function };
        if !yes {
            confirmation::needs_terminal("queue purge --all")?;
        }
        // Those that come while it does are not meant: what is replayed may soon be there again.
        letters::each(gateway, &filter, &mut |letter| numbers.extend(of(&letter, "number").as_u64()))?;
        let question = format!("{} {}{} for good?", act.word(), count(numbers.len()), filter.words());
        if !yes && !numbers.is_empty() && !confirmation::given(&question) {
            return Ok(ExitCode::FAILURE);
        }
    }
    let mut progress = Progress::new(numbers.len());
    let mut tally = Tally::default();
    let ended = letters::act_on(gateway, act, &numbers, &mut |number, outcome| {
        tally.count(&outcome);
        progress.clear();
        match (json, outcome) {
            (true, outcome) => print_json(&outcome.report(number, act)),
            (false, Outcome::Done) => {}
            (false, Outcome::Absent(_)) if all => {}
            (false, Outcome::Absent(why) | Outcome::Refused(why)) => {
                eprintln!("bothyctl: {number} is not {}: {}", act.done(), plain(&why));
            }
        }
        progress.step();
    });
    progress.clear();
    if !json {
        println!("{}", tally.describe(act, all));
    }
    ended?;
    let well = tally.refused == 0 && (all || tally.absent == 0);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn count(letters: usize) -> String {
    if letters == 1 { "1 dead letter".to_owned() } else { format!("{letters} dead letters") }
}

/// What a gateway says instead of what was asked for: in its own words where the request is what is wrong.
fn refused(gateway: &Gateway, reply: &Reply) -> Error {
    let words = plain(reply.text.trim());
    if (400..500).contains(&reply.status) && !words.is_empty() {
        return Error::Answer(words);
    }
    gateway.refused(reply.status, &words)
}

/// Text of others, for a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

/// A member as it is shown, `-` where there is none.
fn shown(object: &Value, key: &str) -> String {
    match of(object, key) {
        Value::Null => "-".to_owned(),
        Value::String(text) => plain(text),
        other => plain(&other.to_string()),
    }
}

/// A moment, and how long ago it was.
fn since(object: &Value, key: &str) -> Option<String> {
    let at = of(object, key).as_str().and_then(moment::parse)?;
    let written = moment::text(at.saturating_mul(1_000_000));
    let written = written.split('.').next().unwrap_or_default();
    Some(format!("{written} UTC ({} ago)", span(moment::seconds_since(at.saturating_mul(1000)))))
}

/// Lines of a name and a value each; what is not there is left out.
fn lines(pairs: &[(&str, Option<String>)]) -> String {
    let known = pairs.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    known.map(|(name, value)| format!("{name:<12} {value}\n")).collect()
}
