//! From when to when a certificate is valid: the one part of it that neither TLS nor its library tells (RFC 5280,
//! section 4.1; encoded in DER, X.690).

/// Seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from: u64,
    /// The last one.
    pub until: u64,
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// The version's field, which certificates of the first version do not have.
const VERSION: u8 = 0xa0;

impl Validity {
    /// Reads a certificate in DER; nothing when it is none. A time before 1970 counts as 1970.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (certificate, _) = expect(SEQUENCE, certificate)?;
        let (mut fields, _) = expect(SEQUENCE, certificate)?;
        if let Some((_, rest)) = expect(VERSION, fields) {
            fields = rest;
        }
        let (_, fields) = expect(INTEGER, fields)?;
        let (_algorithm, fields) = expect(SEQUENCE, fields)?;
        let (_issuer, fields) = expect(SEQUENCE, fields)?;
        let (validity, _) = expect(SEQUENCE, fields)?;
        let (from, rest) = time(validity)?;
        let (until, _) = time(rest)?;
        Some(Self { from, until })
    }
}

/// The content of the first element, if it is of that kind, and what is behind it.
fn expect(kind: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == kind).then_some((content, rest))
}

/// Kind and content of the first element, and what is behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[kind, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The number of bytes that the length itself has.
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((kind, content, rest))
}

/// `YYMMDDHHMMSSZ` (the years 1950 to 2049) or `YYYYMMDDHHMMSSZ`, and what is behind it.
fn time(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (kind, content, rest) = element(bytes)?;
    let digits = content.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0_i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let (year, digits) = match (kind, digits.len()) {
        (UTC_TIME, 12) => {
            let (year, rest) = digits.split_at(2);
            let year = number(year);
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, rest) = digits.split_at(4);
            (number(year), rest)
        }
        _ => return None,
    };
    let parts: Vec<i64> = digits.chunks(2).map(number).collect();
    let &[month, day, hour, minute, second] = parts.as_slice() else { return None };
    let fits =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    fits.then_some((u64::try_from(seconds).unwrap_or(0), rest))
}

/// Days from 1970-01-01 to a Gregorian date: years are counted from March, so that the leap day is the last of its year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp::rfc3339;
    use proptest::prelude::*;

    fn wrapped(kind: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[kind, 0x82, length[0], length[1]], content].concat()
    }

    fn certificate(version: bool, from: &[u8], until: &[u8]) -> Vec<u8> {
        let version = if version { wrapped(VERSION, &[INTEGER, 1, 2]) } else { Vec::new() };
        let validity = wrapped(SEQUENCE, &[from, until].concat());
        let fields =
            [version, vec![INTEGER, 1, 7], wrapped(SEQUENCE, b""), wrapped(SEQUENCE, b"who"), validity];
        wrapped(SEQUENCE, &wrapped(SEQUENCE, &fields.concat()))
    }

    fn utc(text: &str) -> Vec<u8> {
        [&[UTC_TIME, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    }

    #[test]
    fn both_notations_of_time() {
        for version in [true, false] {
            let long = [&[GENERALIZED_TIME, 15], &b"20500229235959Z"[..]].concat();
            let found = Validity::of(&certificate(version, &utc("491231235959Z"), &long)).unwrap();
            assert_eq!(rfc3339(found.from), "2049-12-31T23:59:59Z");
            // 2050 has no leap day: what is not a date is the day after.
            assert_eq!(rfc3339(found.until), "2050-03-01T23:59:59Z");
            let old =
                Validity::of(&certificate(version, &utc("500101000000Z"), &utc("000229120000Z"))).unwrap();
            assert_eq!((old.from, rfc3339(old.until).as_str()), (0, "2000-02-29T12:00:00Z"));
        }
    }

    #[test]
    fn what_is_no_certificate() {
        let good = certificate(true, &utc("260101000000Z"), &utc("270101000000Z"));
        assert!(Validity::of(&good).is_some());
        for length in 0..good.len() {
            assert_eq!(Validity::of(&good[..length]), None, "{length}");
        }
        for time in ["260101000000", "2601010000Z", "261301000000Z", "260100000000Z", "2601010000+0Z"] {
            assert_eq!(Validity::of(&certificate(true, &utc(time), &utc("270101000000Z"))), None, "{time}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Validity::of(&bytes);
        }

        #[test]
        fn days_are_those_of_timestamps(days in 0_u64..100_000) {
            let text = rfc3339(days * 86_400);
            let part = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
            prop_assert_eq!(super::days(part(0..4), part(5..7), part(8..10)), i64::try_from(days).unwrap());
        }
    }
}
