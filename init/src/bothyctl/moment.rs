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
}
