//! File name patterns as modules.alias uses them: `*`, `?`, `[abc]`, `[a-c]`, `[!a]` (fnmatch(3), no flags).

/// Whether `text` is one that `pattern` describes.
///
/// One star is retried at a time: a pattern full of stars, as PCI's are, costs pattern length times text length.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (mut rest, mut left) = (pattern.as_bytes(), text.as_bytes());
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        match rest.split_first() {
            Some((b'*', after)) => {
                star = Some((after, left));
                rest = after;
                continue;
            }
            None if left.is_empty() => return true,
            Some((&first, after)) => {
                if let Some((&byte, behind)) = left.split_first()
                    && let Some(after) = one(first, after, byte)
                {
                    (rest, left) = (after, behind);
                    continue;
                }
            }
            None => {}
        }
        // Let the last star take one byte more.
        let Some((after, taken)) = star else { return false };
        let Some((_, behind)) = taken.split_first() else { return false };
        star = Some((after, behind));
        (rest, left) = (after, behind);
    }
}

/// Matches one byte against the pattern's next element; gives the pattern behind that element.
fn one(first: u8, after: &[u8], byte: u8) -> Option<&[u8]> {
    match first {
        b'?' => Some(after),
        b'[' => set(after, byte),
        b'\\' => after.split_first().filter(|(c, _)| **c == byte).map(|(_, rest)| rest),
        literal => (literal == byte).then_some(after),
    }
}

/// Matches a set, `after` being what follows `[`. A set without end matches nothing.
fn set(after: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut members) = match after.split_first() {
        Some((b'!' | b'^', rest)) => (true, rest),
        _ => (false, after),
    };
    let (mut found, mut first) = (false, true);
    loop {
        let (&low, rest) = members.split_first()?;
        if low == b']' && !first {
            return (found != negated).then_some(rest);
        }
        first = false;
        match rest {
            [b'-', high, tail @ ..] if *high != b']' => {
                found |= (low..=*high).contains(&byte);
                members = tail;
            }
            _ => {
                found |= low == byte;
                members = rest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modaliases() {
        assert!(matches("virtio:d00000001v*", "virtio:d00000001v00001AF4"));
        assert!(!matches("virtio:d00000001v*", "virtio:d00000002v00001AF4"));
        assert!(matches(
            "pci:v*d*sv*sd*bc01sc06i01*",
            "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01"
        ));
        assert!(matches("usb:v0424p9E0[0-9A-F]d*", "usb:v0424p9E0Cd0100"));
        assert!(!matches("usb:v0424p9E0[!0-9A-F]d*", "usb:v0424p9E0Cd0100"));
    }

    #[test]
    fn shapes() {
        assert!(matches("", ""));
        assert!(!matches("", "a"));
        assert!(matches("*", ""));
        assert!(matches("a*b*c", "axxbxxbc"));
        assert!(!matches("a*b*c", "axxbxxb"));
        assert!(matches("[]]", "]"));
        assert!(!matches("[a", "a"));
        assert!(matches("?\\*", "x*"));
        assert!(!matches(&"*a".repeat(40), &"a".repeat(39)));
    }
}
