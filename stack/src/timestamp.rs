//! Moments as the API shows them: RFC 3339 in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970; a clock before that counts as 1970.
pub fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Microseconds since 1970, as the journal counts.
pub fn now_micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// `2026-11-23T15:00:00Z`.
pub fn rfc3339(seconds: u64) -> String {
    let (year, month, day) = civil(seconds / 86_400);
    let second = seconds % 86_400;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Microseconds since 1970 with as many digits as they need, as Go's RFC3339Nano: `2026-11-23T15:00:00.25Z`.
pub fn rfc3339_micros(micros: u64) -> String {
    let mut text = rfc3339(micros / 1_000_000);
    let fraction = format!("{:06}", micros % 1_000_000);
    let digits = fraction.trim_end_matches('0');
    if !digits.is_empty() {
        text.insert_str(text.len() - 1, &format!(".{digits}"));
    }
    text
}

/// Reads RFC 3339 with any offset and any number of digits behind the second: microseconds since 1970, negative before.
pub fn parse(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't'])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (clock, offset) = match time.strip_suffix(['Z', 'z']) {
        Some(clock) => (clock, 0),
        None => {
            let (clock, zone) = time.split_at_checked(time.len().checked_sub(6)?)?;
            let [hours, minutes] = numbers(zone.get(1..)?, ':', [2, 2])?;
            let sign = match zone.get(..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            (clock, (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))?)
        }
    };
    let (clock, fraction) = match clock.split_once('.') {
        Some((clock, digits)) => (clock, micros(digits)?),
        None => (clock, 0),
    };
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(seconds * 1_000_000 + fraction)
}

/// Numbers of so many digits each, with that between them.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(between);
    let mut found = [0; N];
    for (number, digits) in found.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits)?;
        *number = part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(found)
}

/// What the digits behind the second are; those after the sixth say nothing that we keep.
fn micros(digits: &str) -> Option<i64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    format!("{digits:0<6}").get(..6)?.parse().ok()
}

/// The day of a Gregorian date counted from 1970-01-01, the inverse of [`civil`]; nothing when there is no such date.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if !(1..=longest).contains(&day) {
        return None;
    }
    let (year, from_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// The Gregorian date of a day counted from 1970-01-01: years are counted from March, so that the leap day is the last
/// of its year, in eras of 400 years (146,097 days).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_795_446_000, "2026-11-23T15:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
            assert_eq!(parse(text), Some(i64::try_from(seconds).unwrap() * 1_000_000));
        }
    }

    #[test]
    fn fractions_and_offsets() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_000_001, "1970-01-01T00:00:01.000001Z"),
            (1_795_446_000_250_000, "2026-11-23T15:00:00.25Z"),
        ] {
            assert_eq!(rfc3339_micros(micros), text);
            assert_eq!(parse(text), Some(i64::try_from(micros).unwrap()));
        }
        assert_eq!(parse("2026-11-23T16:30:00.123456789+01:30"), Some(1_795_446_000_123_456));
        assert_eq!(parse("2026-11-23t07:00:00-08:00"), Some(1_795_446_000_000_000));
        // Go's zero time.
        assert_eq!(parse("0001-01-01T00:00:00Z"), Some(-62_135_596_800_000_000));
        for bad in [
            "",
            "T",
            "yesterday",
            "2026-11-23",
            "2026-11-23 15:00:00Z",
            "2026-11-23T15:00:00",
            "2026-11-23T15:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T15:00:60Z",
            "2026-11-31T15:00:00Z",
            "2026-02-29T15:00:00Z",
            "2026-13-01T15:00:00Z",
            "2026-11-23T15:00:00.Z",
            "2026-11-23T15:00:00+0100",
            "2026-11-23T15:00:00+24:00",
            "+026-11-23T15:00:00Z",
            "2026-11-23T15:00:00é01:00",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(micros in 0u64..253_402_300_800_000_000) {
            prop_assert_eq!(parse(&rfc3339_micros(micros)), i64::try_from(micros).ok());
        }

        #[test]
        fn never_panics(text in "[0-9TZ:.+-]{0,40}|.{0,40}") {
            let _ = parse(&text);
        }
    }
}
