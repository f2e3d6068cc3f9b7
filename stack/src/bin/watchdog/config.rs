//! The environment that configures the watchdog: the names and defaults of the of-watchdog and the classic watchdog.

use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::http::uri::PathAndQuery;

use crate::mode::Mode;
use crate::variables::Variables;

/// Default of the time limits.
const PATIENCE: Duration = Duration::from_secs(30);

/// Default of the longest line.
const LINE: usize = 64 << 10;

/// A configuration that can work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The program and its arguments; nothing in mode static.
    pub command: Vec<String>,
    /// How it is run.
    pub mode: Mode,
    /// Port for requests.
    pub port: u16,
    /// Port for metrics.
    pub metrics_port: u16,
    /// Longest time for a request's head, and without news of its body; nothing: no limit.
    pub read_timeout: Option<Duration>,
    /// Longest time in which a caller takes nothing of an answer, and for calls to end after SIGTERM.
    pub write_timeout: Duration,
    /// Longest time of a call; nothing: no limit.
    pub exec_timeout: Option<Duration>,
    /// How long calls are still taken after SIGTERM.
    pub healthcheck_interval: Duration,
    /// Type of the answers of programs that are started for each call.
    pub content_type: Option<HeaderValue>,
    /// Calls at the same time at most; nothing: no limit.
    pub max_inflight: Option<usize>,
    /// The program's lines.
    pub lines: Lines,
    /// Whether each call is logged.
    pub log_calls: bool,
    /// Whether the call's identifier stands in its line.
    pub log_call_id: bool,
    /// Whether the lock file is made.
    pub lock: bool,
    /// Path that `/_/ready` asks the function for.
    pub ready_path: Option<PathAndQuery>,
}

/// How the program's lines are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// Whether they get a prefix.
    pub prefix: bool,
    /// Where longer ones are broken, in bytes; nothing: never.
    pub longest: Option<usize>,
}

/// The line with which a log begins: what runs here, and how.
impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = env!("CARGO_PKG_VERSION");
        write!(f, "version {version}, mode {}, port {}, ", self.mode.name(), self.port)?;
        match &self.mode {
            Mode::Static(folder) => write!(f, "folder {}", folder.display()),
            _ => write!(f, "process {}", self.command.join(" ")),
        }
    }
}

impl Config {
    /// Reads the environment; an error is one line that says what is wrong and what was expected.
    pub fn from_environment(get: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let variables = Variables(get);
        let mode = Mode::read(&variables)?;
        let command = variables.text("function_process").or_else(|| variables.text("fprocess"));
        let command: Vec<String> =
            command.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        if command.is_empty() && !matches!(mode, Mode::Static(_)) {
            return Err("fprocess is not set: expected the function's program and its arguments".to_owned());
        }
        if variables.flag(&["jwt_auth"], false)? {
            return Err(
                "jwt_auth=true: this watchdog checks no tokens, expected false or nothing: who may call is \
                        decided in front of the function"
                    .to_owned(),
            );
        }
        let write_timeout = variables.time("write_timeout")?.unwrap_or(PATIENCE);
        if write_timeout.is_zero() {
            return Err("write_timeout=0: expected more than nothing".to_owned());
        }
        let default_exec = if matches!(mode, Mode::Classic(_)) { Duration::ZERO } else { PATIENCE };
        let default_type =
            if matches!(mode, Mode::Classic(_)) { None } else { Some("application/octet-stream") };
        let some_time = |limit: Duration| Some(limit).filter(|limit| !limit.is_zero());
        let longest = variables.parsed(
            "log_buffer_size",
            "bytes, or -1 for lines of any length",
            |value| match value {
                "-1" => Some(None),
                _ => value.parse::<usize>().ok().filter(|bytes| *bytes > 0).map(Some),
            },
        )?;
        let header = |value: &str| HeaderValue::from_str(value).ok();
        let path = |value: &str| value.parse::<PathAndQuery>().ok().filter(|_| value.starts_with('/'));
        Ok(Self {
            command,
            port: variables.port("port", 8080)?,
            metrics_port: variables.port("metrics_port", 8081)?,
            read_timeout: some_time(variables.time("read_timeout")?.unwrap_or(PATIENCE)),
            write_timeout,
            exec_timeout: some_time(variables.time("exec_timeout")?.unwrap_or(default_exec)),
            healthcheck_interval: variables.time("healthcheck_interval")?.unwrap_or_default(),
            content_type: match variables.parsed("content_type", "a media type such as text/plain", header)? {
                Some(value) => Some(value),
                None => default_type.map(HeaderValue::from_static),
            },
            max_inflight: variables
                .parsed("max_inflight", "a number of calls, 0 for any", |value| value.parse().ok())?
                .filter(|limit| *limit > 0),
            lines: Lines {
                prefix: variables.flag(&["prefix_logs"], true)?,
                longest: longest.unwrap_or(Some(LINE)),
            },
            log_calls: variables.flag(&["log_calls"], true)?,
            log_call_id: variables.flag(&["log_call_id", "log_callid"], false)?,
            lock: !variables.flag(&["suppress_lock"], false)?,
            ready_path: variables.parsed("ready_path", "a path that begins with /", path)?,
            mode,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mode::Classic;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, String> {
        Config::from_environment(&|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    fn defaults() {
        let config = read(&[("function_process", "figlet -f slant"), ("fprocess", "cat")]).unwrap();
        assert_eq!(config.command, ["figlet", "-f", "slant"]);
        assert_eq!(config.mode, Mode::Streaming);
        assert_eq!((config.port, config.metrics_port), (8080, 8081));
        assert_eq!(config.read_timeout, Some(PATIENCE));
        assert_eq!(config.write_timeout, PATIENCE);
        assert_eq!(config.exec_timeout, Some(PATIENCE));
        assert_eq!(config.healthcheck_interval, Duration::ZERO);
        assert_eq!(config.max_inflight, None);
        assert_eq!(config.content_type.unwrap(), "application/octet-stream");
        assert_eq!(config.lines, Lines { prefix: true, longest: Some(65536) });
        assert!(config.lock && config.log_calls && !config.log_call_id);
        assert_eq!(config.ready_path, None);
    }

    #[test]
    fn set() {
        let config = read(&[
            ("fprocess", "node index.js"),
            ("mode", "http"),
            ("upstream_url", "http://127.0.0.1:3000/"),
            ("buffer_http", "1"),
            ("read_timeout", "0"),
            ("exec_timeout", "0"),
            ("write_timeout", "1m"),
            ("healthcheck_interval", "5"),
            ("max_inflight", "4"),
            ("prefix_logs", "false"),
            ("log_buffer_size", "-1"),
            ("log_callid", "true"),
            ("suppress_lock", "true"),
            ("ready_path", "/ready?x=1"),
        ])
        .unwrap();
        let Mode::Http(target) = &config.mode else { panic!("{:?}", config.mode) };
        assert_eq!(target.addresses, [([127, 0, 0, 1], 3000).into()]);
        assert!(target.buffered);
        assert_eq!((config.read_timeout, config.exec_timeout), (None, None));
        assert_eq!(config.write_timeout, Duration::from_secs(60));
        assert_eq!(config.healthcheck_interval, Duration::from_secs(5));
        assert_eq!(config.max_inflight, Some(4));
        assert_eq!(config.lines, Lines { prefix: false, longest: None });
        assert!(!config.lock && config.log_call_id);
        assert_eq!(config.ready_path.unwrap(), "/ready?x=1");
        let url = [("upstream_url", "http://127.0.0.1:1"), ("http_upstream_url", "http://127.0.0.1:2")];
        let config = read(&[&url[..], &[("fprocess", "x"), ("mode", "http")]].concat()).unwrap();
        let Mode::Http(target) = config.mode else { panic!("{:?}", config.mode) };
        assert_eq!(target.addresses[0].port(), 2);
    }

    #[test]
    fn other_modes() {
        let config = read(&[("mode", "static")]).unwrap();
        assert_eq!(config.mode, Mode::Static("/home/app/public".into()));
        assert!(config.to_string().ends_with("mode static, port 8080, folder /home/app/public"), "{config}");
        let config = read(&[("mode", "classic"), ("fprocess", "cat"), ("combine_output", "false")]).unwrap();
        let classic =
            Classic { cgi_headers: true, combine_output: false, write_debug: false, debug_headers: false };
        assert_eq!(config.mode, Mode::Classic(classic));
        assert_eq!((config.exec_timeout, config.content_type), (None, None));
        assert_eq!(read(&[("mode", "serializing"), ("fprocess", "cat")]).unwrap().mode, Mode::Serializing);
    }

    /// Every refusal names the variable, has the value where there is one, and says what was expected.
    #[test]
    fn refusals() {
        let http = [("fprocess", "cat"), ("mode", "http")];
        let with = |pair| [&http[..], &[pair]].concat();
        for (pairs, parts) in [
            (vec![], ["fprocess", "program"]),
            (http.to_vec(), ["upstream_url is not set", "http://127.0.0.1:3000"]),
            (with(("upstream_url", "https://x")), ["upstream_url=https://x", "http://"]),
            (with(("http_upstream_url", "http://name:80")), ["http_upstream_url=http://name:80", "address"]),
            (
                with(("upstream_url", "http://127.0.0.1:8080")),
                ["upstream_url", "port 8080 is the watchdog's own"],
            ),
            (
                vec![("fprocess", "cat"), ("mode", "fast")],
                ["mode=fast", "streaming, serializing, classic, http or static"],
            ),
            (vec![("fprocess", "cat"), ("mode", "afterburn")], ["mode=afterburn", "streaming"]),
            (vec![("fprocess", "cat"), ("read_timeout", "soon")], ["read_timeout=soon", "1m30s"]),
            (vec![("fprocess", "cat"), ("write_timeout", "0")], ["write_timeout=0", "more"]),
            (vec![("fprocess", "cat"), ("exec_timeout", "-5s")], ["exec_timeout=-5s", "seconds"]),
            (vec![("fprocess", "cat"), ("port", "70000")], ["port=70000", "1 to 65535"]),
            (vec![("fprocess", "cat"), ("max_inflight", "-1")], ["max_inflight=-1", "0 for any"]),
            (vec![("fprocess", "cat"), ("prefix_logs", "yes")], ["prefix_logs=yes", "true or false"]),
            (vec![("fprocess", "cat"), ("log_buffer_size", "0")], ["log_buffer_size=0", "-1"]),
            (vec![("fprocess", "cat"), ("ready_path", "ready")], ["ready_path=ready", "/"]),
            (vec![("fprocess", "cat"), ("content_type", "a\u{1}b")], ["content_type=", "text/plain"]),
            (vec![("fprocess", "cat"), ("jwt_auth", "true")], ["jwt_auth=true", "false or nothing"]),
            (
                vec![("fprocess", "cat"), ("mode", "classic"), ("marshal_request", "true")],
                ["marshal_request=true", "false or nothing"],
            ),
        ] {
            let problem = read(&pairs).unwrap_err();
            assert!(parts.iter().all(|part| problem.contains(part)), "{problem}");
        }
    }
}
