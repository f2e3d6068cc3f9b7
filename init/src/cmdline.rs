//! The kernel's command line: `key=value` words, quotes as the kernel takes them.

use crate::error::{Error, Result};
use crate::file;

/// The words of a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine(Vec<(String, String)>);

impl CommandLine {
    /// That of the running kernel.
    pub(crate) fn read() -> Result<Self> {
        Ok(Self::parse(&file::read("/proc/cmdline")?))
    }

    /// Splits at white space outside of double quotes; a word without `=` has an empty value.
    pub(crate) fn parse(text: &str) -> Self {
        let mut words = Vec::new();
        let (mut word, mut quoted) = (String::new(), false);
        for c in text.chars().chain([' ']) {
            match c {
                '"' => quoted = !quoted,
                c if c.is_whitespace() && !quoted => {
                    if !word.is_empty() {
                        let (key, value) = word.split_once('=').unwrap_or((&word, ""));
                        words.push((key.to_owned(), value.to_owned()));
                        word.clear();
                    }
                }
                c => word.push(c),
            }
        }
        Self(words)
    }

    /// The last value of a key: later words win, as in the kernel.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// `roothash=`, the root of the verity tree that the root partition must carry.
    pub(crate) fn root_hash(&self) -> Result<[u8; 32]> {
        let text =
            self.value("roothash").ok_or_else(|| Error::CommandLine("roothash= is missing".to_owned()))?;
        parse_hash(text)
            .ok_or_else(|| Error::CommandLine(format!("roothash={text} is not 64 hexadecimal digits")))
    }
}

/// 64 hexadecimal digits.
fn parse_hash(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (i, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(i * 2..i * 2 + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_value_wins_and_quotes_hold_blanks() {
        let line = CommandLine::parse("quiet console=tty0 console=ttyS0 note=\"a b\"\n");
        assert_eq!(line.value("console"), Some("ttyS0"));
        assert_eq!(line.value("note"), Some("a b"));
        assert_eq!(line.value("quiet"), Some(""));
        assert_eq!(line.value("loud"), None);
    }

    #[test]
    fn root_hash_is_strict() {
        let good = format!("roothash={}", "0f".repeat(32));
        assert_eq!(CommandLine::parse(&good).root_hash().unwrap(), [0x0f; 32]);
        for bad in ["", "roothash=", "roothash=12", &format!("roothash={}", "é".repeat(32))] {
            assert!(CommandLine::parse(bad).root_hash().is_err(), "{bad}");
        }
    }
}
