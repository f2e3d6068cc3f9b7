//! Words of the console: one place for the lines that tests and benches read.

use std::fmt::Write as _;

use super::memory::Memory;
use crate::board::Status;
use crate::net;

/// The line that says that all is well.
pub(super) fn ready(status: &Status) -> String {
    let address = status.address.as_deref();
    format!("bothy: ready: {} {} {}", status.hostname, address.unwrap_or("no address"), net::url(address))
}

/// One line for each line of a problem.
pub(super) fn problem(text: &str) -> String {
    text.lines().map(|line| format!("bothy: problem: {line}")).collect::<Vec<_>>().join("\n")
}

/// Memory and uptime.
pub(super) fn memory(memory: &Memory) -> String {
    format!("memory: used={} pss={} uptime={}", memory.used, memory.pss, memory.uptime)
}

/// The status screen. `made` is user and password that this device made itself: they are shown nowhere else.
pub(super) fn screen(status: &Status, made: Option<&(String, String)>) -> String {
    let mut text = String::new();
    let health = if status.healthy { "healthy" } else { "not healthy" };
    let name = if status.hostname.is_empty() { "(no name yet)" } else { &status.hostname };
    let _ = writeln!(text, "{name}  {}  {health}", net::url(status.address.as_deref()));
    let _ = writeln!(text, "  network       {}", or(&status.network, "starting"));
    let _ = writeln!(text, "  data          {}", or(&status.data, "not mounted yet"));
    let _ = writeln!(text, "  config        {}", or(&status.config, "not read yet"));
    for service in &status.services {
        let _ = write!(text, "  {:<14}{}", service.name, service.state);
        if service.restarts > 0 {
            let _ = write!(text, ", {} restarts", service.restarts);
        }
        if let Some(error) = &service.last_error {
            let _ = write!(text, ", last: {error}");
        }
        text.push('\n');
    }
    if let Some((user, password)) = made {
        let _ = writeln!(text, "  login         {user} / {password}  (made on this device)");
    }
    for trouble in status.troubles() {
        let _ = writeln!(text, "{}", problem(&trouble));
    }
    let _ = writeln!(text, "  Enter shows this, a user's name logs in");
    text
}

fn or<'t>(text: &'t str, instead: &'t str) -> &'t str {
    if text.is_empty() { instead } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Service, State};

    #[test]
    fn the_lines_that_others_read() {
        let mut status = Status { hostname: "barn".into(), ..Status::default() };
        assert_eq!(ready(&status), "bothy: ready: barn no address http://127.0.0.1:8080");
        status.address = Some("10.0.2.15".into());
        assert_eq!(ready(&status), "bothy: ready: barn 10.0.2.15 http://10.0.2.15:8080");
        assert_eq!(problem("a\nb"), "bothy: problem: a\nbothy: problem: b");
        let memory = self::memory(&Memory { used: 1, pss: 2, uptime: 3 });
        assert_eq!(memory, "memory: used=1 pss=2 uptime=3");
    }

    #[test]
    fn the_screen_says_what_failed_and_why() {
        let last_error = Some("ended with exit status 1".to_owned());
        let trouble = Some("ended with exit status 1, again and again".to_owned());
        let (name, state) = ("nats".into(), State::Failed);
        let nats = Service { name, state, restarts: 2, last_error, trouble, ..Service::default() };
        let status = Status { services: vec![nats], ..Status::default() };
        let text = screen(&status, Some(&("admin".into(), "secret".into())));
        assert!(
            text.contains("  nats          failed, 2 restarts, last: ended with exit status 1\n"),
            "{text}"
        );
        assert!(
            text.contains("admin / secret") && text.contains("bothy: problem: service nats: ended"),
            "{text}"
        );
    }
}
