//! Random numbers that need no more than to differ: the standard library's hash seeds are the kernel's randomness.

use std::hash::{BuildHasher, RandomState};

/// Any number.
pub fn number() -> u64 {
    RandomState::new().hash_one(0)
}

/// A random UUID (RFC 9562, version 4).
pub fn uuid() -> String {
    let random = || u128::from(number());
    let bits = (random() << 64 | random()) & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let mut text = String::with_capacity(36);
    for (at, byte) in bits.to_be_bytes().into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.extend([byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        let (one, two) = (uuid(), uuid());
        assert_ne!(one, two);
        assert_eq!(one.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&one.as_bytes()[19]));
    }
}
