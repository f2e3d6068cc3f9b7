//! SHA-256, the one hash of this crate, and identifiers derived from it.

use sha2::{Digest, Sha256};

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SHA-256 as lower case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    to_hex(&sha256(bytes))
}

/// Lower case hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The seed of every identifier in an image: no identifier is random, each follows from what the image holds.
#[derive(Debug, Clone, Copy)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A seed from the digest of what identifies an image.
    pub fn new(bytes: &[u8]) -> Seed {
        Seed(sha256(bytes))
    }

    /// 32 bytes for a purpose.
    pub fn bytes(&self, purpose: &str) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        hasher.update(purpose.as_bytes());
        hasher.finalize().into()
    }

    /// A version 8 UUID (RFC 9562, section 5.8) for a purpose, in the order in which it is printed.
    pub fn uuid(&self, purpose: &str) -> [u8; 16] {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&self.bytes(purpose)[..16]);
        uuid[6] = uuid[6] & 0x0f | 0x80;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        uuid
    }

    /// A 32 bit number for a purpose.
    pub fn u32(&self, purpose: &str) -> u32 {
        let bytes = self.bytes(purpose);
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_carry_version_and_variant() {
        let uuid = Seed::new(b"x").uuid("disk");
        assert_eq!(uuid[6] >> 4, 8);
        assert_eq!(uuid[8] >> 6, 0b10);
        assert_ne!(uuid, Seed::new(b"x").uuid("boot"));
        assert_ne!(uuid, Seed::new(b"y").uuid("disk"));
    }
}
