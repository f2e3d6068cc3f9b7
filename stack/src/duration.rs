//! Durations as OpenFaaS writes them: whole seconds, or Go's syntax (`1m30s`, `1.5h`, `500ms`).

use std::time::Duration;

/// Units of Go's `time.ParseDuration` in nanoseconds, longest name first where one is another's start.
const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];

/// Longest duration taken, in nanoseconds: what Go's signed 64 bits hold, about 292 years.
const LONGEST: f64 = i64::MAX as f64;

/// Reads whole seconds or a Go duration; nothing when it is neither, or negative, or too long.
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let seconds = text.parse::<u64>().ok().filter(|s| (*s as f64) * 1e9 < LONGEST)?;
        return Some(Duration::from_secs(seconds));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        if !number.bytes().any(|b| b.is_ascii_digit()) {
            return None;
        }
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (name, tail) = tail.split_at(end);
        let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == name)?;
        total += number.parse::<f64>().ok()? * unit;
        rest = tail;
    }
    (total < LONGEST).then(|| Duration::from_nanos(total.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_syntaxes() {
        for (text, millis) in [
            ("30", 30_000),
            ("0", 0),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("500ms", 500),
            ("+2s", 2_000),
            (" 7 ", 7_000),
            (".5s", 500),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "1x", "-1s", "1h30", ".s"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse("99999999999999999999"), None);
        assert_eq!(parse("1e3s"), None);
        assert_eq!(parse("9999999h"), None);
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn sums_its_parts(h in 0u64..1000, m in 0u64..1000, s in 0u64..1000) {
            prop_assert_eq!(parse(&format!("{h}h{m}m{s}s")), Some(Duration::from_secs(h * 3600 + m * 60 + s)));
        }
    }
}
