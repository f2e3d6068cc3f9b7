//! Percent-encoding in paths (RFC 3986, section 2.1).

/// What a path stands for; nothing when it is not encoded correctly, or has a byte that no path and no variable can
/// have.
pub fn decode(path: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            other => other,
        };
        if byte == 0 {
            return None;
        }
        decoded.push(byte);
    }
    Some(decoded)
}

fn digit(byte: u8) -> Option<u8> {
    // Of a hexadecimal digit, so it fits.
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths() {
        assert_eq!(decode("/a%20b/%C3%a4+").unwrap(), "/a b/ä+".as_bytes());
        for bad in ["/%", "/%2", "/%zz", "/%00", "/%+1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(path in ".{0,40}") {
            let _ = decode(&path);
        }

        #[test]
        fn turns_back(bytes in proptest::collection::vec(1u8.., 0..40)) {
            let path: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(decode(&path), Some(bytes));
        }
    }
}
