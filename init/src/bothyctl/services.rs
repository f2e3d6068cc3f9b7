//! `bothyctl services`.

use std::process::ExitCode;

use serde_json::Value;

use super::table::{Table, bytes, span};
use super::transport::Machine;
use super::value::of;
use super::{logs, moment, print_json};
use crate::error::Result;
use crate::request::{Filter, Request};

/// Lines of the journal that are shown of one service.
const LINES: u64 = 10;

pub(super) fn run(machine: &Machine, name: Option<String>, json: bool) -> Result<ExitCode> {
    let mut found = Vec::new();
    let request = Request::Services { name: name.clone() };
    machine.ask(&request, &mut |service| {
        if json {
            print_json(&service);
        }
        found.push(service);
        Ok(())
    })?;
    if !json {
        list(&found).print();
        if let (Some(name), Some(service)) = (name, found.first()) {
            println!();
            ends(service).print();
            println!();
            let filter = Filter { service: Some(name), lines: Some(LINES), ..Filter::default() };
            machine.ask(&Request::Logs(Box::new(filter)), &mut |entry| {
                logs::print_short(&entry);
                Ok(())
            })?;
        }
    }
    let well = |service: &Value| of(service, "state") == "ready";
    Ok(if found.iter().all(well) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list(services: &[Value]) -> Table {
    let head = ["SERVICE", "STATE", "FOR", "PID", "RESTARTS", "CPU", "MEMORY", "TASKS", "LAST END"];
    let mut table = Table::new(&head, &[2, 3, 4, 5, 6, 7]);
    for service in services {
        let number = |key: &str| of(service, key).as_u64();
        let text = |key: &str| of(service, key).as_str().unwrap_or("-").to_owned();
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        table.row(vec![
            text("name"),
            text("state"),
            or_dash(number("since_ms").map(|at| span(moment::seconds_since(at)))),
            or_dash(number("pid").map(|pid| pid.to_string())),
            number("restarts").unwrap_or(0).to_string(),
            or_dash(number("cpu_usec").map(|usec| format!("{:.1}s", usec as f64 / 1e6))),
            or_dash(number("memory").map(bytes)),
            or_dash(number("pids").map(|pids| pids.to_string())),
            text("last_error"),
        ]);
    }
    table
}

/// Its last ends, the oldest first.
fn ends(service: &Value) -> Table {
    let mut table = Table::new(&["ENDED (UTC)", "AFTER", "WHY"], &[1]);
    for end in of(service, "ends").as_array().into_iter().flatten() {
        let number = |key: &str| of(end, key).as_u64().unwrap_or(0);
        let why = of(end, "reason").as_str().unwrap_or("").to_owned();
        table.row(vec![moment::text(number("time") * 1_000_000), span(number("lived")), why]);
    }
    table
}
