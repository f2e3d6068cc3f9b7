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
        match (first.trim(), last.trim(), first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
            // So many at the end.
            ("", _, _, Ok(count)) if count == 0 || length == 0 => Self::Outside,
            ("", _, _, Ok(count)) => Self::Part(length.saturating_sub(count), length - 1),
            (_, _, Ok(first), Ok(last)) if last < first => Self::Whole,
            (_, "", Ok(first), _) | (_, _, Ok(first), Ok(_)) if first >= length => Self::Outside,
            (_, "", Ok(first), _) => Self::Part(first, length - 1),
            (_, _, Ok(first), Ok(last)) => Self::Part(first, last.min(length - 1)),
            _ => Self::Whole,
        }
    }
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
