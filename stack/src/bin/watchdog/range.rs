//! Parts of a file that a request asks for (RFC 9110, section 14).

/// What of a file is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// All of it: nobody asked for a part, or not in a way that we know, which is as good.
    Whole,
    /// From the first byte to this one, the last included.
    Part(u64, u64),
    /// Nothing of what was asked for is there.
    Outside,
}

impl Range {
    /// Reads a `Range` header for a file of this length. More than one part is answered with the whole.
    pub fn parse(header: &str, length: u64) -> Self {
        let Some((first, last)) = header.strip_prefix("bytes=").and_then(|range| range.split_once('-'))
        else {
            return Self::Whole;
        };
        let (first, last) = (first.trim(), last.trim());
        match (first, last, number(first), number(last)) {
            // So many at the end.
            ("", _, _, Some(count)) if count == 0 || length == 0 => Self::Outside,
            ("", _, _, Some(count)) => Self::Part(length.saturating_sub(count), length - 1),
            (_, _, Some(first), Some(last)) if last < first => Self::Whole,
            (_, "", Some(first), _) | (_, _, Some(first), Some(_)) if first >= length => Self::Outside,
            (_, "", Some(first), _) => Self::Part(first, length - 1),
            (_, _, Some(first), Some(last)) => Self::Part(first, last.min(length - 1)),
            _ => Self::Whole,
        }
    }
}

/// Digits and nothing else: a sign makes it no range.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts() {
        for (header, length, range) in [
            ("bytes=0-4", 10, Range::Part(0, 4)),
            ("bytes=5-", 10, Range::Part(5, 9)),
            ("bytes=5-100", 10, Range::Part(5, 9)),
            ("bytes=-3", 10, Range::Part(7, 9)),
            ("bytes=-30", 10, Range::Part(0, 9)),
            ("bytes=10-", 10, Range::Outside),
            ("bytes=10-20", 10, Range::Outside),
            ("bytes=-0", 10, Range::Outside),
            ("bytes=0-", 0, Range::Outside),
            ("bytes=-1", 0, Range::Outside),
            ("bytes=4-2", 10, Range::Whole),
            ("bytes=0-1,4-5", 10, Range::Whole),
            ("bytes=a-b", 10, Range::Whole),
            ("bytes=-", 10, Range::Whole),
            ("bytes=+1-", 10, Range::Whole),
            ("bytes=1-+4", 10, Range::Whole),
            ("lines=0-1", 10, Range::Whole),
        ] {
            assert_eq!(Range::parse(header, length), range, "{header} of {length}");
        }
    }

    proptest! {
        #[test]
        fn never_more_than_there_is(header in "bytes=[0-9]{0,3}-[0-9]{0,3}", length in 0u64..500) {
            if let Range::Part(first, last) = Range::parse(&header, length) {
                prop_assert!(first <= last && last < length);
            }
        }
    }
}
