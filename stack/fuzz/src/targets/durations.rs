//! Durations: whole seconds or Go's syntax; and the narrower times of bothy.toml.

use std::time::Duration;

use provisioning::Timeout;

use crate::duration;

pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let found = duration::parse(text).map(|duration| duration.as_nanos());
    match (found, exact(text.trim())) {
        // Digits that are less than a nanosecond are cut off, of each part.
        (Some(found), Some((exact, parts))) => {
            assert!(found <= exact && exact - found <= parts, "{text}: {found}, {exact}");
        }
        (None, None) => {}
        (None, Some((exact, _))) => assert!(exact > i64::MAX as u128, "{text} is {exact}"),
        (Some(found), None) => panic!("{text:?} is no duration, and not {found}"),
    }
    if let Ok(timeout) = text.parse::<Timeout>() {
        assert_eq!(duration::parse(text), Some(timeout.duration()));
        assert_eq!(timeout.to_string().parse(), Ok(timeout));
        assert!((1..=86_400).map(Duration::from_secs).any(|whole| whole == timeout.duration()));
    }
}

/// Nanoseconds, rounded down in each part, and how many parts there are: character by character.
fn exact(text: &str) -> Option<(u128, u128)> {
    let is_number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    if is_number(text) {
        // What does not fit is too long in any case.
        return Some((
            text.parse::<u128>().map_or(u128::MAX, |seconds| seconds.saturating_mul(1_000_000_000)),
            1,
        ));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let (mut sum, mut parts) = (0_u128, 0);
    while !rest.is_empty() || parts == 0 {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let (digits, behind) = rest.split_at(rest.len() - number.len());
        let unit_ends = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, next) = behind.split_at(unit_ends);
        let unit: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if !is_number(&format!("{whole}{fraction}")) {
            return None;
        }
        let whole = if whole.is_empty() { 0 } else { whole.parse::<u128>().unwrap_or(u128::MAX) };
        // Digit by digit from the right, as by hand.
        let behind =
            fraction.bytes().rev().fold(0, |carry, digit| (u128::from(digit - b'0') * unit + carry) / 10);
        sum = sum.saturating_add(whole.saturating_mul(unit)).saturating_add(behind);
        (rest, parts) = (next, parts + 1);
    }
    Some((sum, parts))
}
