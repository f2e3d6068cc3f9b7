//! Variables of the environment, read as what they stand for.

use std::time::Duration;

use crate::duration;

/// The environment, by name. An error is one line with the variable, its value and what was expected.
pub struct Variables<'a>(pub &'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    /// A value without the blanks around it; an empty one counts as none.
    pub fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// A value that `parse` understands.
    pub fn parsed<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match parse(&value) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(format!("{name}={}: expected {expected}", printable(&value))),
        }
    }

    /// A time.
    pub fn time(&self, name: &str) -> Result<Option<Duration>, String> {
        self.parsed(name, "seconds (30) or a duration (1m30s, 500ms)", duration::parse)
    }

    /// A port.
    pub fn port(&self, name: &str, default: u16) -> Result<u16, String> {
        let port = |value: &str| value.parse().ok().filter(|port| *port > 0);
        Ok(self.parsed(name, "a port, 1 to 65535", port)?.unwrap_or(default))
    }

    /// Yes or no, in Go's spellings, by the first of these names that is set.
    pub fn flag(&self, names: &[&str], default: bool) -> Result<bool, String> {
        for name in names {
            if let Some(value) = self.parsed(name, "true or false", truth)? {
                return Ok(value);
            }
        }
        Ok(default)
    }
}

/// A value for a line of a log: characters that end it or move a terminal's cursor are written out.
pub fn printable(value: &str) -> String {
    let written = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    value.chars().map(written).collect()
}

fn truth(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let get = |name: &str| match name {
            "time" => Some(" 1m30s ".to_owned()),
            "late" => Some("-1".to_owned()),
            "none" => Some("  ".to_owned()),
            "yes" => Some("True".to_owned()),
            "no" => Some("0".to_owned()),
            "what" => Some("maybe".to_owned()),
            "port" => Some("0".to_owned()),
            "lines" => Some("1\n2\u{1b}[2J".to_owned()),
            _ => None,
        };
        let variables = Variables(&get);
        assert_eq!(variables.time("time").unwrap(), Some(Duration::from_secs(90)));
        assert_eq!(variables.time("none").unwrap(), None);
        assert_eq!(
            variables.time("late").unwrap_err(),
            "late=-1: expected seconds (30) or a duration (1m30s, 500ms)"
        );
        assert!(variables.flag(&["absent", "yes"], false).unwrap());
        assert!(!variables.flag(&["no", "yes"], true).unwrap());
        assert!(variables.flag(&["absent"], true).unwrap());
        assert_eq!(variables.flag(&["what"], true).unwrap_err(), "what=maybe: expected true or false");
        assert_eq!(variables.time("lines").unwrap_err().lines().count(), 1);
        assert_eq!(variables.port("absent", 8080).unwrap(), 8080);
        assert_eq!(variables.port("port", 8080).unwrap_err(), "port=0: expected a port, 1 to 65535");
    }
}
