//! Moments as people read them, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// `2026-11-23 22:10:05.123` of microseconds since 1970. (Days to dates: Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms", civil_from_days.)
pub(super) fn text(usec: u64) -> String {
    let seconds = usec / 1_000_000;
    let (days, second) = (seconds / 86400, seconds % 86400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let milli = usec / 1000 % 1000;
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{milli:03}")
}

/// Seconds since 1970 of a moment of RFC 3339 in UTC, such as `2026-11-23T22:10:05Z`. (Hinnant's days_from_civil.)
pub(super) fn parse(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time.split('.').next()?, ':')?;
    let fits = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    // A leap second is one.
    if !fits || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let year = if month > 2 { year } else { year - 1 };
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = (month + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    Some(days * 86400 + hour * 3600 + minute * 60 + second)
}

/// Three numbers of digits alone.
fn numbers(text: &str, between: char) -> Option<[u64; 3]> {
    let number = |part: &str| {
        let digits = (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        part.parse().ok().filter(|_| digits)
    };
    let found: Option<Vec<u64>> = text.split(between).map(number).collect();
    found?.try_into().ok()
}

/// Seconds from a moment in milliseconds since 1970 until now.
pub(super) fn seconds_since(at_ms: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    now.saturating_sub(at_ms / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, wanted) in [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_399, "2000-02-28 23:59:59.000"),
            (951_782_400, "2000-02-29 00:00:00.000"),
            (1_795_475_405, "2026-11-23 23:10:05.000"),
            (4_102_444_800, "2100-01-01 00:00:00.000"),
        ] {
            assert_eq!(text(seconds * 1_000_000), wanted);
        }
        assert!(text(1_999).ends_with(".001"));
    }

    #[test]
    fn dates_are_read_as_they_are_written() {
        for seconds in [0, 951_782_399, 951_782_400, 1_795_475_405, 4_102_444_800] {
            let written = text(seconds * 1_000_000).replace(' ', "T");
            assert_eq!(parse(&format!("{written}Z")), Some(seconds), "{written}");
            assert_eq!(parse(&format!("{}Z", &written[..19])), Some(seconds), "{written}");
        }
        for bad in [
            "",
            "Z",
            "2026-11-23",
            "2026-11-23T22:10Z",
            "2026-13-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T22:10:05",
            "+2026-11-23T22:10:05Z",
            "2026-11-00T00:00:00Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
