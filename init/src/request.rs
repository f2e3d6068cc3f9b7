//! What can be asked of a machine, and the form of the answers: the protocol of the control socket.
//!
//! A request is one line, `{"command":"status"}`. The answer is lines of JSON objects, of which the last one has either
//! `"done": true` or `"error": TEXT`; those before it are what was asked for. `bothyctl` speaks it on the socket, and
//! the gateway passes it on, line by line.

use serde::{Deserialize, Serialize};

/// Where the socket lies.
pub(crate) const SOCKET: &str = "/run/bothy/control";
/// Longest request.
pub(crate) const LONGEST_BYTES: usize = 64 << 10;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Request {
    /// The machine: one object, as in status.json.
    Status {},
    /// The services: one object for each.
    Services {
        /// Only this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// The phases of start and end: one object for each list.
    Plan {},
    /// What uses the machine: one object for each sample.
    Top {
        /// Time that a sample covers.
        #[serde(default = "second")]
        interval_ms: u64,
        /// How many samples; 0: until the client has gone.
        #[serde(default = "one")]
        count: u64,
    },
    /// The journal: one object for each entry, with all its fields as journalctl's JSON has them.
    Logs(Box<Filter>),
    /// The configuration in force: one object.
    Config {
        /// With passwords.
        #[serde(default, skip_serializing_if = "is_false")]
        reveal: bool,
    },
    /// The gateway's user and password: one object.
    Credentials {},
    /// Orderly end.
    Poweroff {},
    /// Orderly end, and a new start.
    Reboot {},
    /// Orderly end, and a new start without any data.
    Reset {},
}

fn second() -> u64 {
    1000
}

fn one() -> u64 {
    1
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Which entries of the journal. All that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Filter {
    /// Of this service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Of this function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Of functions of this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// As serious as this, or more: a name or number of syslog(3), or a range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// From this time on, as journalctl takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Up to this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Only the last ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<u64>,
    /// Of this boot: 0 the current one, -1 the one before; an id; or `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// Whose text matches this pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grep: Option<String>,
    /// Of the kernel.
    #[serde(skip_serializing_if = "is_false")]
    pub kernel: bool,
    /// Stay, and give what comes.
    #[serde(skip_serializing_if = "is_false")]
    pub follow: bool,
    /// `FIELD=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

impl Request {
    /// Its line, without the end.
    pub(crate) fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a line; the error is for the client.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| {
            // serde names the line, which is always 1.
            let text = error.to_string();
            let text = text.split(" at line 1").next().unwrap_or_default();
            format!("this is no request: {text}; expected one line such as {{\"command\":\"status\"}}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_and_come() {
        let filter = Filter { function: Some("figlet".into()), follow: true, ..Filter::default() };
        let top = Request::Top { interval_ms: 500, count: 0 };
        for request in
            [Request::Status {}, Request::Services { name: None }, top, Request::Logs(Box::new(filter))]
        {
            assert_eq!(Request::parse(request.line().as_bytes()), Ok(request));
        }
        assert_eq!(Request::Status {}.line(), r#"{"command":"status"}"#);
        let top = Request::parse(br#"{"command":"top"}"#).unwrap();
        assert_eq!(top, Request::Top { interval_ms: 1000, count: 1 });
    }

    #[test]
    fn an_unknown_command_is_answered_with_those_there_are() {
        let error = Request::parse(br#"{"command":"dance"}"#).unwrap_err();
        for word in ["dance", "status", "services", "plan", "top", "logs", "config", "poweroff", "reboot"] {
            assert!(error.contains(word), "{error}");
        }
        for bad in ["", "status", "{}", r#"{"command":"status","x":1}"#, r#"{"command":"logs","line":1}"#] {
            assert!(Request::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
