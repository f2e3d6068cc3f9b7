//! Durations as OpenFaaS writes them: whole seconds, or Go's syntax (`1m30s`, `1.5h`, `500ms`).

use std::time::Duration;

/// Units of Go's `time.ParseDuration` in nanoseconds, longest name first where one is another's start.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3_600 * SECOND),
];

const SECOND: u128 = 1_000_000_000;

/// Longest duration taken, in nanoseconds: what Go's signed 64 bits hold, about 292 years.
const LONGEST: u128 = i64::MAX as u128;

/// Digits behind the point that count; of an hour the fourteenth is less than a nanosecond.
const DIGITS: usize = 14;

/// Reads whole seconds or a Go duration; nothing when it is neither, or negative, or too long.
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let total = match whole(text) {
        Some(seconds) if !text.is_empty() => seconds.checked_mul(SECOND)?,
        _ => go(text.strip_prefix('+').unwrap_or(text))?,
    };
    (total <= LONGEST).then(|| Duration::from_nanos(total as u64))
}

/// Go's syntax, in nanoseconds.
fn go(mut rest: &str) -> Option<u128> {
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (name, tail) = tail.split_at(end);
        let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == name)?;
        let (before, behind) = number.split_once('.').unwrap_or((number, ""));
        if before.is_empty() && behind.is_empty() {
            return None;
        }
        // A second point would else hide behind the digits that count.
        if behind.contains('.') {
            return None;
        }
        let behind = behind.get(..DIGITS).unwrap_or(behind);
        // What does not fit is too long by far.
        total = total.checked_add(whole(before)?.checked_mul(*unit)?)?;
        total = total.checked_add(whole(behind)? * unit / 10_u128.pow(behind.len() as u32))?;
        rest = tail;
    }
    Some(total)
}

/// A number of decimal digits; none are zero.
fn whole(digits: &str) -> Option<u128> {
    digits.bytes().try_fold(0_u128, |number, digit| {
        let digit = char::from(digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
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
        assert_eq!(parse("0.1s"), Some(Duration::from_millis(100)));
        assert_eq!(parse("1.000000001s"), Some(Duration::new(1, 1)));
        assert_eq!(parse("0.3333333333333333333333333333h"), Some(Duration::from_nanos(1_199_999_999_999)));
        assert_eq!(parse("9223372036s"), Some(Duration::from_secs(9_223_372_036)));
        for bad in [
            "",
            "s",
            "1x",
            "-1s",
            "1h30",
            ".s",
            "1.2.3s",
            "1.00000000000000.5s",
            "+",
            "9223372037",
            "9223372036s1s",
        ] {
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
