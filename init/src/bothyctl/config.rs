//! `bothyctl config` and `bothyctl credentials`.

use std::process::ExitCode;

use serde_json::Value;

use super::print_json;
use super::table::Table;
use super::transport::Machine;
use super::value::of;
use crate::error::Result;
use crate::request::Request;

pub(super) fn run(machine: &Machine, reveal: bool, json: bool) -> Result<ExitCode> {
    let report = machine.ask_one(&Request::Config { reveal })?;
    if json {
        print_json(&report);
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["KEY", "VALUE", "FROM"], &[]);
    for value in of(&report, "values").as_array().into_iter().flatten() {
        let word = |key: &str| match &of(value, key) {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        table.row(vec![word("key"), word("value"), word("from")]);
    }
    table.print();
    if let Some(problem) = of(&report, "problem").as_str() {
        println!("\nproblem: {}", problem.replace('\n', "\n         "));
    }
    Ok(ExitCode::SUCCESS)
}

/// The gateway's user and password.
pub(super) fn credentials(machine: &Machine, json: bool) -> Result<ExitCode> {
    let report = machine.ask_one(&Request::Credentials {})?;
    if json {
        print_json(&report);
    } else {
        for key in ["user", "password", "from"] {
            println!("{key:<9} {}", of(&report, key).as_str().unwrap_or("-"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
