//! What a client wants of the logs, and how journalctl is asked for it.

use std::ffi::OsString;
use std::path::Path;

use crate::gateway::query::Query;
use crate::key::Key;
use crate::timestamp;

/// How far a client that does not say looks back, in microseconds.
const BACK: u64 = 300 * 1_000_000;

/// The fields of an entry that are read. journalctl adds the time.
const FIELDS: &str = "--output-fields=MESSAGE,BOTHY_REPLICA";

/// A request, read.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whose logs.
    pub key: Key,
    /// Of which instance alone.
    instance: Option<String>,
    /// Since when, in microseconds since 1970.
    since: u64,
    /// How many of the last ones, at most.
    tail: Option<u32>,
    /// Whether what is written from now on is wanted too.
    pub follow: bool,
}

impl Wanted {
    /// Reads a request's query; `now` in microseconds since 1970. An error says what is wrong with it.
    pub fn parse(query: Option<&str>, now: u64) -> Result<Self, String> {
        let query = Query::parse(query);
        let name = query.last("name").ok_or("name: whose logs is not said")?;
        let key = match query.last("namespace") {
            Some(namespace) => Key::new(name, namespace),
            None => Key::from_path(name),
        };
        let key = key.ok_or_else(|| format!("name, namespace: {name:?} cannot be a function there"))?;
        let since = match query.last("since") {
            // A plus sign that was not encoded has become a space.
            Some(text) => timestamp::parse(&text.replace(' ', "+"))
                .map(|micros| u64::try_from(micros).unwrap_or(0))
                .ok_or_else(|| {
                    format!("since: {text:?} is no time such as 2026-11-23T15:00:00Z (RFC 3339)")
                })?,
            None => now.saturating_sub(BACK),
        };
        // What comes later than now is all to come: a client whose clock is ahead of ours follows from now on.
        let since = since.min(now);
        let tail = match query.last("tail") {
            Some(text) => text.parse::<i64>().map_err(|error| format!("tail: {text:?}: {error}"))?,
            None => 0,
        };
        let follow = match query.last("follow").unwrap_or("false") {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            other => return Err(format!("follow: {other:?} is neither true nor false")),
        };
        let instance = query.last("instance").map(str::to_owned);
        if instance.as_ref().is_some_and(|instance| instance.contains('\0')) {
            return Err("instance: holds a zero byte".to_owned());
        }
        // journalctl counts in 31 bits; no journal has more entries.
        let tail = u32::try_from(tail).ok().filter(|tail| (1..=i32::MAX as u32).contains(tail));
        Ok(Self { key, instance, since, tail, follow })
    }

    /// journalctl's arguments: from the beginning, or behind an entry that it told before. Every value is behind an equals
    /// sign: none can be taken for an option.
    pub fn arguments(&self, folder: Option<&Path>, after: Option<&str>) -> Vec<OsString> {
        let mut words: Vec<OsString> =
            ["--no-pager", "--quiet", "--all", "--output=json", FIELDS].map(OsString::from).into();
        words.extend(folder.map(|folder| {
            let mut word = OsString::from("--directory=");
            word.push(folder);
            word
        }));
        let (seconds, micros) = (self.since / 1_000_000, self.since % 1_000_000);
        words.push(match after {
            Some(cursor) => format!("--after-cursor={cursor}").into(),
            None => format!("--since=@{seconds}.{micros:06}").into(),
        });
        words.push(match self.tail {
            Some(tail) if after.is_none() => format!("--lines={tail}").into(),
            // Else some versions begin to follow with the last ten.
            _ => "--no-tail".into(),
        });
        if self.follow {
            words.push("--follow".into());
        }
        words.push(format!("BOTHY_NAMESPACE={}", self.key.namespace).into());
        words.push(format!("BOTHY_FUNCTION={}", self.key.name).into());
        words.extend(self.instance.as_ref().map(|instance| {
            let name = format!("{}.", self.key.name);
            // What was never an instance's name matches nothing.
            OsString::from(format!("BOTHY_REPLICA={}", instance.strip_prefix(&name).unwrap_or(instance)))
        }));
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_446_000_500_000;

    fn words(query: &str) -> String {
        let words = Wanted::parse(Some(query), NOW).unwrap().arguments(None, None);
        words[5..].iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn requests_become_arguments() {
        let whose = "BOTHY_NAMESPACE=openfaas-fn BOTHY_FUNCTION=f";
        for (query, wanted) in [
            ("name=f", format!("--since=@1795445700.500000 --no-tail {whose}")),
            ("name=f.openfaas-fn&tail=&since=", format!("--since=@1795445700.500000 --no-tail {whose}")),
            (
                "name=f&namespace=dev&tail=-1&follow=true",
                "--since=@1795445700.500000 --no-tail --follow BOTHY_NAMESPACE=dev BOTHY_FUNCTION=f"
                    .to_owned(),
            ),
            (
                "name=x&tail=1&follow=1&name=f&tail=20&follow=F&since=2026-11-23T16%3A00%3A00.5%2B01:00",
                format!("--since=@1795446000.500000 --lines=20 {whose}"),
            ),
            (
                "name=f&since=2026-11-23T16:00:00+01:00",
                format!("--since=@1795446000.000000 --no-tail {whose}"),
            ),
            ("name=f&since=2999-01-01T00:00:00Z", format!("--since=@1795446000.500000 --no-tail {whose}")),
            ("name=f&since=0001-01-01T00:00:00Z", format!("--since=@0.000000 --no-tail {whose}")),
            ("name=f&tail=9999999999", format!("--since=@1795445700.500000 --no-tail {whose}")),
            ("name=f&instance=f.3", format!("--since=@1795445700.500000 --no-tail {whose} BOTHY_REPLICA=3")),
            (
                "name=f&instance=--file%3Dx",
                format!("--since=@1795445700.500000 --no-tail {whose} BOTHY_REPLICA=--file=x"),
            ),
        ] {
            assert_eq!(words(query), wanted, "{query}");
        }
        let elsewhere = Wanted::parse(Some("name=f"), 0).unwrap().arguments(Some(Path::new("/j")), None);
        assert!(
            elsewhere.contains(&"--directory=/j".into()) && elsewhere.contains(&"--since=@0.000000".into())
        );
        let again = Wanted::parse(Some("name=f&tail=3"), NOW).unwrap().arguments(None, Some("s=1;i=2"));
        assert_eq!(again[5..7], ["--after-cursor=s=1;i=2", "--no-tail"]);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for (query, part) in [
            (None, "name"),
            (Some("name="), "name"),
            (Some("name=--help"), "name"),
            (Some("name=f&namespace=A_b"), "namespace"),
            (Some("name=f&since=yesterday"), "since"),
            (Some("name=f&since=2026-11-23T15:00:00Z&since=x"), "since"),
            (Some("name=f&tail=many"), "tail"),
            (Some("name=f&tail=1.5"), "tail"),
            (Some("name=f&tail=99999999999999999999"), "tail"),
            (Some("name=f&follow=yes"), "follow"),
            (Some("name=f&instance=%00"), "instance"),
        ] {
            let reason = Wanted::parse(query, NOW).unwrap_err();
            assert!(reason.starts_with(part) || reason.contains(part), "{query:?}: {reason}");
        }
    }
}
