//! The watchdog's variables. An input is `NAME=value`, one a line; `\n` in a value is a line's end.

use hyper::http::uri::PathAndQuery;

use crate::config::Config;
use crate::mode::Mode;

pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let pairs: Vec<(&str, String)> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name, value.replace("\\n", "\n")))
        .collect();
    let get = |name: &str| pairs.iter().rfind(|(known, _)| *known == name).map(|(_, value)| value.clone());
    let config = match Config::from_environment(&get) {
        Ok(config) => config,
        Err(wrong) => {
            // One line that names the variable.
            assert!(wrong.contains("expected") && !wrong.chars().any(char::is_control), "{wrong:?}");
            let variable = wrong.split(['=', ' ', ':']).next().unwrap();
            assert!(
                variable == "fprocess" || variable == "upstream_url" || get(variable).is_some(),
                "{wrong}"
            );
            return;
        }
    };
    assert!(config.port > 0 && config.metrics_port > 0 && !config.write_timeout.is_zero());
    assert!(config.read_timeout.is_none_or(|limit| !limit.is_zero()));
    assert!(config.exec_timeout.is_none_or(|limit| !limit.is_zero()));
    assert!(config.max_inflight != Some(0) && config.lines.longest != Some(0));
    assert!(!config.command.is_empty() || matches!(config.mode, Mode::Static(_)));
    assert!(config.command.iter().all(|word| !word.is_empty() && !word.contains(char::is_whitespace)));
    assert!(config.ready_path.is_none_or(|path| path.path().starts_with('/')));
    if let Mode::Http(target) = &config.mode {
        // Every call's path can be put behind it.
        assert!(!target.addresses.is_empty() && !target.base.ends_with('/'));
        let path = format!("{}/a?b", target.base).parse::<PathAndQuery>();
        assert!(path.is_ok_and(|path| path.query() == Some("b")), "{:?}", target.base);
    }
}
