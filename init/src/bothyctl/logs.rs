//! `bothyctl logs`.

use std::process::ExitCode;

use serde_json::Value;

use super::arguments::{LogArguments, Output};
use super::transport::Machine;
use super::{moment, print_json};
use crate::error::Result;
use crate::request::{Filter, Request};

/// How many are shown unless something is said about it.
const LINES: u64 = 50;

pub(super) fn run(machine: &Machine, arguments: LogArguments, json: bool) -> Result<ExitCode> {
    let output = if json { Output::Json } else { arguments.output };
    let filter = filter(arguments);
    machine.ask(&Request::Logs(Box::new(filter)), &mut |entry| {
        match output {
            Output::Short => print_short(&entry),
            Output::Verbose => print!("{}", verbose(&entry)),
            Output::Json => print_json(&entry),
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn filter(arguments: LogArguments) -> Filter {
    let LogArguments { service, function, namespace, kernel, priority, since, until, lines, .. } = arguments;
    let LogArguments { boot, grep, follow, fields, .. } = arguments;
    let bounded = since.is_some() || until.is_some() || boot.is_some() || grep.is_some();
    let lines = lines.or((!bounded).then_some(if follow { 10 } else { LINES }));
    Filter { service, function, namespace, priority, since, until, lines, boot, grep, kernel, follow, fields }
}

/// One entry on a line, or on more where its text has more.
pub(super) fn print_short(entry: &Value) {
    println!("{}", short(entry));
}

fn short(entry: &Value) -> String {
    let time = time(entry);
    let who = match (field(entry, "BOTHY_NAMESPACE"), field(entry, "BOTHY_FUNCTION")) {
        (Some(namespace), Some(function)) => format!("{function}.{namespace}"),
        _ => field(entry, "SYSLOG_IDENTIFIER")
            .or_else(|| field(entry, "_COMM"))
            .unwrap_or_else(|| "-".to_owned()),
    };
    let level = match field(entry, "PRIORITY").as_deref() {
        Some("0" | "1" | "2" | "3") => "error: ",
        Some("4") => "warning: ",
        _ => "",
    };
    let text = field(entry, "MESSAGE").unwrap_or_default();
    let text = text.trim_end().replace('\n', "\n    ");
    // The year is known to whoever reads this.
    format!("{}  {who}: {level}{text}", time.get(5..).unwrap_or(&time))
}

/// Every field, by name.
fn verbose(entry: &Value) -> String {
    let mut text = format!("{} UTC\n", time(entry));
    for (name, _) in entry.as_object().into_iter().flatten() {
        let value = field(entry, name).unwrap_or_default().replace('\n', "\n        ");
        text += &format!("    {name}={value}\n");
    }
    text
}

fn time(entry: &Value) -> String {
    let usec = field(entry, "__REALTIME_TIMESTAMP").and_then(|usec| usec.parse().ok());
    moment::text(usec.unwrap_or(0))
}

/// A field's text. journalctl gives what is no text as numbers, and a field that comes twice as a list.
fn field(entry: &Value, name: &str) -> Option<String> {
    let bytes = |list: &Vec<Value>| -> Option<Vec<u8>> {
        list.iter().map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect()
    };
    match entry.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => match bytes(list) {
            Some(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            None => Some(list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")),
        },
        Value::Null => None,
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_are_lines() {
        let mut entry = json!({
            "__REALTIME_TIMESTAMP": "1795475405123456", "SYSLOG_IDENTIFIER": "gateway", "PRIORITY": "6",
            "MESSAGE": "a\nb\n",
        });
        assert_eq!(short(&entry), "11-23 23:10:05.123  gateway: a\n    b");
        entry["PRIORITY"] = json!("3");
        entry["MESSAGE"] = json!([111, 107, 255]);
        assert_eq!(short(&entry), "11-23 23:10:05.123  gateway: error: ok\u{fffd}");
        entry["BOTHY_FUNCTION"] = json!("figlet");
        entry["BOTHY_NAMESPACE"] = json!("openfaas-fn");
        assert!(short(&entry).contains("  figlet.openfaas-fn: error"));
        assert!(verbose(&entry).contains("\n    BOTHY_FUNCTION=figlet\n"), "{}", verbose(&entry));
        assert_eq!(field(&json!({"X": ["a", "b"]}), "X").as_deref(), Some("a, b"));
    }
}
