//! QEMU's monitor: one JSON document a line (the QEMU Machine Protocol), commands and events.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Error, Result};

/// How long QEMU may take to answer a command.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to a machine's monitor.
pub struct Monitor {
    stream: BufReader<UnixStream>,
    /// Events that arrived while something else was read.
    events: Vec<Value>,
    /// Part of a line that a time limit cut.
    partial: String,
}

impl Monitor {
    /// Takes the greeting and switches to commands.
    pub(crate) fn attach(stream: UnixStream) -> Result<Self> {
        let mut monitor = Self { stream: BufReader::new(stream), events: Vec::new(), partial: String::new() };
        let limit = Instant::now() + PATIENCE;
        match monitor.read("connect", limit)? {
            Some(greeting) if greeting.get("QMP").is_some() => {}
            other => return Err(failed("connect", format!("no greeting but {other:?}"))),
        }
        monitor.execute("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// Runs a command and gives its result.
    ///
    /// # Errors
    /// QEMU is gone, does not answer, or refuses.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        self.stream.get_mut().write_all(line.as_bytes()).map_err(|e| failed(command, e.to_string()))?;
        let limit = Instant::now() + PATIENCE;
        loop {
            let Some(mut document) = self.read(command, limit)? else {
                return Err(failed(command, format!("no answer in {} s", PATIENCE.as_secs())));
            };
            if let Some(result) = document.get_mut("return") {
                return Ok(result.take());
            }
            if let Some(error) = document.get("error") {
                let reason = error.get("desc").and_then(Value::as_str).unwrap_or("refused");
                return Err(failed(command, reason));
            }
            self.keep(document);
        }
    }

    /// Waits for an event such as `POWERDOWN`, `RESET`, `SHUTDOWN`; nothing if it did not come in time.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn event(&mut self, name: &str, limit: Duration) -> Result<Option<Value>> {
        let limit = Instant::now() + limit;
        loop {
            if let Some(at) = self.events.iter().position(|event| event.get("event") == Some(&json!(name))) {
                return Ok(Some(self.events.remove(at)));
            }
            match self.read("wait for an event", limit)? {
                Some(document) => self.keep(document),
                None => return Ok(None),
            }
        }
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// QEMU is gone or refuses.
    pub fn powerdown(&mut self) -> Result<()> {
        self.execute("system_powerdown", json!({})).map(drop)
    }

    /// Pulls the plug.
    ///
    /// # Errors
    /// QEMU is gone or refuses.
    pub fn quit(&mut self) -> Result<()> {
        self.execute("quit", json!({})).map(drop)
    }

    /// Puts a card's cable in or pulls it out.
    ///
    /// # Errors
    /// QEMU is gone, or has no such card.
    pub fn set_link(&mut self, card: &str, up: bool) -> Result<()> {
        self.execute("set_link", json!({ "name": card, "up": up })).map(drop)
    }

    /// `running`, `paused`, `shutdown`, …
    ///
    /// # Errors
    /// QEMU is gone or refuses.
    pub fn status(&mut self) -> Result<String> {
        let status = self.execute("query-status", json!({}))?;
        Ok(status.get("status").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    fn keep(&mut self, document: Value) {
        if document.get("event").is_some() {
            self.events.push(document);
        }
    }

    /// The next document, or nothing when there is none until `limit`.
    fn read(&mut self, command: &str, limit: Instant) -> Result<Option<Value>> {
        let left = limit.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let socket = self.stream.get_ref();
        socket.set_read_timeout(Some(left)).map_err(|e| failed(command, e.to_string()))?;
        match self.stream.read_line(&mut self.partial) {
            Ok(0) => Err(failed(command, "the machine is gone")),
            Ok(_) => {
                let line = std::mem::take(&mut self.partial);
                serde_json::from_str(&line).map(Some).map_err(|e| failed(command, e.to_string()))
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                Ok(None)
            }
            Err(e) => Err(failed(command, e.to_string())),
        }
    }
}

fn failed(command: &str, reason: impl Into<String>) -> Error {
    Error::Monitor { command: command.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A QEMU that answers each line that it gets with the next of some texts.
    fn attach(answers: &'static [&'static str]) -> Result<Monitor> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut commands = BufReader::new(theirs.try_clone().unwrap());
            theirs.write_all(b"{\"QMP\": {\"version\": {}}}\n").unwrap();
            for answer in answers {
                commands.read_line(&mut String::new()).unwrap();
                theirs.write_all(answer.as_bytes()).unwrap();
            }
            // Stay until the other side has gone.
            let _ = commands.read_line(&mut String::new());
        });
        Monitor::attach(ours)
    }

    #[test]
    fn results_errors_and_events() {
        let mut monitor = attach(&[
            "{\"return\": {}}\n",
            "{\"event\": \"RESET\", \"data\": {}}\n{\"return\": {\"status\": \"running\"}}\n",
            "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"what?\"}}\n",
        ])
        .unwrap();
        assert_eq!(monitor.status().unwrap(), "running");
        assert!(monitor.execute("nonsense", json!({})).unwrap_err().to_string().contains("what?"));
        assert!(monitor.event("RESET", Duration::from_secs(1)).unwrap().is_some());
        assert!(monitor.event("RESET", Duration::from_millis(20)).unwrap().is_none());
    }

    #[test]
    fn a_machine_that_is_gone() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(Monitor::attach(ours).is_err());
    }
}
