//! Parts of a file. An input is a `Range` header, a blank and the file's length: `bytes=0-4 10`.

use crate::range::Range;

pub fn check(data: &[u8]) {
    let Some((header, length)) = str::from_utf8(data).ok().and_then(|text| text.rsplit_once(' ')) else {
        return;
    };
    let Ok(length) = length.parse::<u64>() else { return };
    let found = Range::parse(header, length);
    if let Range::Part(first, last) = found {
        assert!(first <= last && last < length);
    }
    assert_eq!(found, meant(header, length), "{header:?} of {length}");
}

/// RFC 9110, 14.1.2, word for word: digits and nothing else; what is no range, or more than one, is as good as none.
fn meant(header: &str, length: u64) -> Range {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.chars().all(|digit| digit.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let range = header.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let Some((first, last)) = range.map(|(first, last)| (first.trim(), last.trim())) else {
        return Range::Whole;
    };
    let (from, to) = match (number(first), number(last)) {
        (Some(from), None) if last.is_empty() => (from, u64::MAX),
        (None, Some(count)) if first.is_empty() => {
            (length.saturating_sub(count), if count == 0 { 0 } else { u64::MAX })
        }
        (Some(from), Some(to)) if from <= to => (from, to),
        _ => return Range::Whole,
    };
    if from >= length || from > to {
        return Range::Outside;
    }
    Range::Part(from, to.min(length - 1))
}
