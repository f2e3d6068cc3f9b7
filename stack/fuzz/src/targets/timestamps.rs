//! RFC 3339.

use crate::timestamp::{parse, rfc3339_micros};

/// The first moment of the year 10000, in microseconds: from then on there are no four digits.
const END: u64 = 253_402_300_800_000_000;

pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let found = parse(text);
    assert_eq!(found, counted(text), "{text}");
    if let Some(micros) = found.and_then(|micros| u64::try_from(micros).ok()).filter(|micros| *micros < END) {
        let shown = rfc3339_micros(micros);
        assert_eq!(parse(&shown), found, "{shown}");
        assert!(
            shown.ends_with('Z') && !shown.ends_with(".Z") && !shown.ends_with("0Z") || !shown.contains('.')
        );
    }
}

/// The same by counting days, year by year and month by month.
fn counted(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| {
        let digits = bytes.get(from..to).filter(|part| part.iter().all(u8::is_ascii_digit))?;
        Some(digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
    };
    let is = |at: usize, one: &[u8]| bytes.get(at).filter(|byte| one.contains(byte)).map(drop);
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    for (at, one) in [(4, &b"-"[..]), (7, b"-"), (10, b"Tt"), (13, b":"), (16, b":")] {
        is(at, one)?;
    }
    let digits = bytes.get(20..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit()).count();
    let zone = match is(19, b".") {
        Some(()) if digits == 0 => return None,
        Some(()) => 20 + digits,
        None => 19,
    };
    let micros = format!("{:0<6}", text.get(20..zone).unwrap_or_default())[..6].parse::<i64>().ok()?;
    let offset = match bytes.get(zone)? {
        b'Z' | b'z' if bytes.len() == zone + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == zone + 6 => {
            is(zone + 3, b":")?;
            let (hours, minutes) = (number(zone + 1, zone + 3)?, number(zone + 4, zone + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'+' { 60 } else { -60 }
        }
        _ => return None,
    };
    let leap = |year: i64| year % 400 == 0 || year % 4 == 0 && year % 100 != 0;
    let lengths = |year: i64| [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let known = (1..=12).contains(&month) && (1..=lengths(year)[month as usize - 1]).contains(&day);
    if !known || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let of = |years: std::ops::Range<i64>| years.map(|year| 365 + i64::from(leap(year))).sum::<i64>();
    let years = of(1970..year) - of(year..1970);
    let days = years + lengths(year)[..month as usize - 1].iter().sum::<i64>() + day - 1;
    Some((days * 86_400 + hour * 3600 + minute * 60 + second - offset) * 1_000_000 + micros)
}
