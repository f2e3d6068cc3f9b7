//! The environment that configures the watchdog (the of-watchdog's names and defaults).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::duration;

/// Default of the three time limits.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the function's program is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Started for each request; its pipes are the bodies.
    Streaming,
    /// Started once; requests are passed on to this address.
    Http(SocketAddr),
}

/// A configuration that can work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How it is run.
    pub mode: Mode,
    /// Port for requests.
    pub port: u16,
    /// Port for metrics.
    pub metrics_port: u16,
    /// Longest time for a request's head.
    pub read_timeout: Duration,
    /// Longest time for calls to end after SIGTERM.
    pub write_timeout: Duration,
    /// Longest time of a call; nothing: no limit.
    pub exec_timeout: Option<Duration>,
    /// Type of the answers in streaming mode.
    pub content_type: String,
    /// Calls at the same time at most; nothing: no limit.
    pub max_inflight: Option<usize>,
    /// Whether the program's lines get a prefix.
    pub prefix_logs: bool,
    /// Whether `/tmp/.lock` is made.
    pub lock: bool,
    /// Path that `/_/ready` asks the program for.
    pub ready_path: Option<String>,
}

/// The line with which a log begins: what runs here, and how.
impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = env!("CARGO_PKG_VERSION");
        let (mode, command) = (self.mode.name(), self.command.join(" "));
        write!(f, "version {version}, mode {mode}, port {}, process {command}", self.port)
    }
}

impl Mode {
    fn name(&self) -> &'static str {
        match self {
            Mode::Streaming => "streaming",
            Mode::Http(_) => "http",
        }
    }
}

impl Config {
    /// Reads the environment; an error is one line that says what is wrong and what was expected.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let text =
            |name: &str| get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let time = |name: &str| match text(name) {
            None => Ok(PATIENCE),
            Some(value) => duration::parse(&value)
                .ok_or_else(|| format!("{name}={value}: expected seconds or a duration such as 1m30s")),
        };
        let number = |name: &str, default: u64| match text(name) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| format!("{name}={value}: expected a number")),
        };
        let flag = |name: &str, default: bool| match text(name).as_deref() {
            None => default,
            Some(value) => matches!(value, "1" | "true"),
        };
        let port = |name: &str, default: u16| {
            let value = number(name, default.into())?;
            u16::try_from(value).map_err(|_| format!("{name}={value}: expected a port"))
        };
        let command = text("fprocess").or_else(|| text("function_process")).unwrap_or_default();
        let command: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if command.is_empty() {
            return Err("fprocess is not set, expected the function's program".to_owned());
        }
        let mode = match text("mode").as_deref() {
            None | Some("streaming") => Mode::Streaming,
            Some("http") => {
                let url = text("http_upstream_url").or_else(|| text("upstream_url"));
                let url =
                    url.ok_or("upstream_url is not set, expected where the function's program listens")?;
                let wrong = || {
                    format!(
                        "upstream_url={url}: expected http://127.0.0.1:PORT, localhost, or another address"
                    )
                };
                Mode::Http(address(&url).ok_or_else(wrong)?)
            }
            Some(other) => return Err(format!("mode={other}: expected streaming or http")),
        };
        let write_timeout = time("write_timeout")?;
        if write_timeout.is_zero() {
            return Err("write_timeout=0: expected more than nothing".to_owned());
        }
        Ok(Self {
            command,
            mode,
            port: port("port", 8080)?,
            metrics_port: port("metrics_port", 8081)?,
            read_timeout: time("read_timeout")?,
            write_timeout,
            exec_timeout: Some(time("exec_timeout")?).filter(|limit| !limit.is_zero()),
            content_type: text("content_type").unwrap_or_else(|| "application/octet-stream".to_owned()),
            max_inflight: usize::try_from(number("max_inflight", 0)?).ok().filter(|limit| *limit > 0),
            prefix_logs: flag("prefix_logs", true),
            lock: !flag("suppress_lock", false),
            ready_path: text("ready_path").filter(|path| path.starts_with('/')),
        })
    }
}

/// The address of an `http://` URL. Names other than `localhost` are refused: the program is in the same container,
/// and a resolver would be a good part of this program.
fn address(url: &str) -> Option<SocketAddr> {
    let authority = url.strip_prefix("http://")?.split('/').next()?;
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match authority.strip_prefix("localhost") {
        Some("") => Some(local(80)),
        Some(port) => port.strip_prefix(':')?.parse().ok().map(local),
        None => {
            authority.parse().ok().or_else(|| Some(SocketAddr::new(authority.parse::<IpAddr>().ok()?, 80)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, String> {
        Config::from_environment(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    fn defaults() {
        let config = read(&[("function_process", "figlet -f slant")]).unwrap();
        assert_eq!(config.command, ["figlet", "-f", "slant"]);
        assert_eq!(config.mode, Mode::Streaming);
        assert_eq!((config.port, config.metrics_port), (8080, 8081));
        assert_eq!(config.exec_timeout, Some(PATIENCE));
        assert_eq!(config.max_inflight, None);
        assert!(config.prefix_logs && config.lock);
    }

    #[test]
    fn set() {
        let config = read(&[
            ("fprocess", "node index.js"),
            ("mode", "http"),
            ("upstream_url", "http://127.0.0.1:3000/"),
            ("exec_timeout", "0"),
            ("write_timeout", "1m"),
            ("max_inflight", "4"),
            ("prefix_logs", "false"),
            ("suppress_lock", "true"),
        ])
        .unwrap();
        assert_eq!(config.mode, Mode::Http(([127, 0, 0, 1], 3000).into()));
        assert_eq!(address("http://localhost/x"), Some(([127, 0, 0, 1], 80).into()));
        assert_eq!(address("http://[::1]:5000"), "[::1]:5000".parse().ok());
        for bad in ["localhost:1", "http://", "http://localhost:x", "http://example.org"] {
            assert_eq!(address(bad), None, "{bad}");
        }
        assert_eq!(config.exec_timeout, None);
        assert_eq!(config.write_timeout, Duration::from_secs(60));
        assert_eq!(config.max_inflight, Some(4));
        assert!(!config.prefix_logs && !config.lock);
    }

    #[test]
    fn refusals() {
        for (pairs, part) in [
            (&[][..], "fprocess"),
            (&[("fprocess", "cat"), ("mode", "http")], "upstream_url"),
            (&[("fprocess", "cat"), ("mode", "http"), ("upstream_url", "https://x")], "upstream_url"),
            (&[("fprocess", "cat"), ("mode", "fast")], "mode"),
            (&[("fprocess", "cat"), ("read_timeout", "soon")], "read_timeout"),
            (&[("fprocess", "cat"), ("write_timeout", "0")], "write_timeout"),
            (&[("fprocess", "cat"), ("port", "70000")], "port"),
        ] {
            let problem = read(pairs).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }
}
