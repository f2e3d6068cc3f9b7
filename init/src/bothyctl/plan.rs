//! `bothyctl plan`.

use std::process::ExitCode;

use serde_json::Value;

use super::print_json;
use super::transport::Machine;
use super::value::of;
use crate::error::{Error, Result};
use crate::request::Request;
use crate::supervise;

pub(super) fn run(machine: &Machine, json: bool) -> Result<ExitCode> {
    let mut print = |list: Value| {
        if json {
            print_json(&list);
        } else {
            print!("{}", describe(&list));
        }
        Ok(())
    };
    match machine.ask(&Request::Plan {}, &mut print) {
        // It is in this program too.
        Err(Error::Ask { .. }) if !machine.is_remote() => {
            for list in supervise::plan() {
                print(serde_json::to_value(&list).unwrap_or_default())?;
            }
        }
        other => other?,
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(list: &Value) -> String {
    let mut text = format!("{}\n", of(list, "title").as_str().unwrap_or_default());
    for (number, phase) in of(list, "phases").as_array().into_iter().flatten().enumerate() {
        let word = |key: &str| of(phase, key).as_str().unwrap_or_default();
        let line = format!("{:>4}  {:<34}  {}", number + 1, word("name"), word("what"));
        text += line.trim_end();
        text.push('\n');
    }
    text
}
