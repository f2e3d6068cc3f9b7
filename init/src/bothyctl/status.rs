//! `bothyctl status`.

use std::process::ExitCode;

use super::print_json;
use super::transport::Machine;
use crate::board::Status;
use crate::error::{Error, Result};
use crate::file;
use crate::request::Request;
use crate::supervise;

pub(super) fn run(machine: &Machine, json: bool) -> Result<ExitCode> {
    let value = match machine.ask_one(&Request::Status {}) {
        // Better old news than none.
        Err(error @ Error::Ask { .. }) if !machine.is_remote() => {
            let text = file::read(supervise::STATUS)?;
            eprintln!("bothyctl: {error}; this is what it wrote last:");
            serde_json::from_str(&text).map_err(unreadable)?
        }
        other => other?,
    };
    let status: Status = serde_json::from_value(value.clone()).map_err(unreadable)?;
    if json {
        print_json(&value);
    } else {
        print!("{}", describe(&status));
    }
    Ok(if status.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::Answer(format!("the status cannot be read: {error}"))
}

fn describe(status: &Status) -> String {
    let health = if status.healthy { "healthy" } else { "not healthy" };
    let name = if status.hostname.is_empty() { "(no name yet)" } else { &status.hostname };
    let url = crate::net::url(status.address.as_deref());
    let mut text = format!("{name}  {url}  {health}\n");
    for (what, is) in [("network", &status.network), ("data", &status.data), ("config", &status.config)] {
        text += &format!("  {what:<14}{}\n", if is.is_empty() { "-" } else { is });
    }
    for service in &status.services {
        text += &format!("  {:<14}{}", service.name, service.state);
        match service.restarts {
            0 => {}
            1 => text += ", 1 restart",
            many => text += &format!(", {many} restarts"),
        }
        if let Some(error) = &service.last_error {
            text += &format!(", last: {error}");
        }
        text.push('\n');
    }
    for notices in status.services.iter().filter_map(|service| service.notice.as_ref()) {
        notices.split("; ").for_each(|notice| text += &format!("notice: {notice}\n"));
    }
    for trouble in status.troubles() {
        text += &format!("problem: {}\n", trouble.replace('\n', "\n         "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_lines_of_their_own() {
        let notice = Some("function f.dev: its process ended; function g.dev: no room".to_owned());
        let gateway = crate::board::Service { name: "gateway".into(), notice, ..Default::default() };
        let text = describe(&Status { services: vec![gateway], ..Status::default() });
        let end = "notice: function f.dev: its process ended\nnotice: function g.dev: no room\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn a_problem_of_many_lines_stays_readable() {
        let status = Status { problems: [("x".into(), "a\nb".into())].into(), ..Status::default() };
        let text = describe(&status);
        assert!(
            text.starts_with("(no name yet)  http://") && text.ends_with("problem: a\n         b\n"),
            "{text}"
        );
    }
}
