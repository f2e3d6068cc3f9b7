//! `bothyctl top`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use serde_json::Value;

use super::arguments::TopArguments;
use super::print_json;
use super::table::{self, Table, bytes};
use super::terminal::Keys;
use super::transport::Machine;
use super::value::of;
use crate::error::Result;
use crate::request::Request;

pub(super) fn run(machine: &Machine, arguments: &TopArguments, json: bool) -> Result<ExitCode> {
    let again = !arguments.once && !json && std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let interval_ms = (arguments.interval.clamp(0.1, 60.0) * 1000.0) as u64;
    let request = Request::Top { interval_ms, count: if again { 0 } else { 1 } };
    // Keys end the program, whatever waits then.
    let _keys = again.then(|| Keys::end_at(b"qQ\x03\x04"));
    machine.ask(&request, &mut |sample| {
        if json {
            print_json(&sample);
        } else {
            show(&sample, again);
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn show(sample: &Value, again: bool) {
    let size = table::size();
    let mut lines = describe(sample, size.map(|(columns, _)| columns));
    let mut text = String::new();
    if again {
        let room = size.map_or(24, |(_, lines)| lines).saturating_sub(1);
        lines.truncate(room);
        // Home, each line cleared to its end, then the rest of the screen: no flicker. (ECMA-48: CUP, EL, ED.)
        text += "\x1b[H";
        text += &lines.iter().map(|line| format!("{line}\x1b[K\r\n")).collect::<String>();
        text += "\x1b[J";
    } else {
        text += &lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    }
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn describe(sample: &Value, width: Option<usize>) -> Vec<String> {
    let number = |key: &str| of(sample, key).as_u64().unwrap_or(0);
    let load: Vec<String> =
        of(sample, "load").as_array().into_iter().flatten().map(ToString::to_string).collect();
    let head = format!(
        "memory {} of {}   load {}   {} processors",
        bytes(number("memory_used")),
        bytes(number("memory_total")),
        load.join(" "),
        number("cpus")
    );
    let mut table =
        Table::new(&["WHAT", "NAME", "CPU %", "MEMORY", "TASKS", "READ/S", "WRITE/S"], &[2, 3, 4, 5, 6]);
    for group in of(sample, "groups").as_array().into_iter().flatten() {
        let number = |key: &str| of(group, key).as_u64().unwrap_or(0);
        let text = |key: &str| of(group, key).as_str().unwrap_or_default().to_owned();
        let name = match of(group, "namespace").as_str() {
            Some(namespace) => format!("{}.{namespace}", text("name")),
            None => text("name"),
        };
        table.row(vec![
            text("kind"),
            name,
            format!("{:.1}", of(group, "cpu_percent").as_f64().unwrap_or(0.0)),
            bytes(number("memory")),
            number("pids").to_string(),
            bytes(number("read_per_s")),
            bytes(number("written_per_s")),
        ]);
    }
    let mut lines = vec![table::cut(&head, width), String::new()];
    lines.extend(table.lines(width));
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sample_is_a_table() {
        let sample = json!({
            "cpus": 2, "load": [0.5, 0.1, 0.0], "memory_used": 64 << 20, "memory_total": 512 << 20,
            "groups": [{
                "kind": "function", "name": "figlet", "namespace": "openfaas-fn", "cpu_percent": 12.34,
                "memory": 2048, "pids": 3, "read_per_s": 0, "written_per_s": 10,
            }],
        });
        let lines = describe(&sample, None);
        assert_eq!(lines[0], "memory 64M of 512M   load 0.5 0.1 0.0   2 processors");
        assert_eq!(lines[2], "WHAT      NAME                CPU %  MEMORY  TASKS  READ/S  WRITE/S");
        assert_eq!(lines[3], "function  figlet.openfaas-fn   12.3    2.0K      3      0B      10B");
    }
}
