//! Amounts of memory and processor time, written as Kubernetes writes them (and OpenFaaS passes on).

use std::fmt;
use std::str::FromStr;

use crate::Invalid;

/// An amount of memory: a number with an optional unit, `128Mi`, `0.5G`, `1000000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    text: String,
    bytes: u64,
}

impl Memory {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// In bytes, rounded up.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Processor time: processors (`2`, `0.5`) or thousandths of one (`100m`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpu {
    text: String,
    millis: u64,
}

impl Cpu {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// In thousandths of a processor, rounded up.
    pub fn millis(&self) -> u64 {
        self.millis
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Units of memory and their size in bytes: powers of 1024 with an i, powers of 1000 without.
const UNITS: [(&str, u64); 12] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];

impl FromStr for Memory {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = || {
            Invalid(
                "is not an amount of memory, expected a number above zero with a unit, such as \"128Mi\" or \"1G\""
                    .to_owned(),
            )
        };
        let (number, unit) = UNITS
            .iter()
            .find_map(|(suffix, size)| text.strip_suffix(suffix).map(|number| (number, *size)))
            .unwrap_or((text, 1));
        let bytes = scaled(number, unit).filter(|bytes| *bytes > 0).ok_or_else(refused)?;
        Ok(Self { text: text.to_owned(), bytes })
    }
}

impl FromStr for Cpu {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = || {
            Invalid(
                "is not an amount of processor time, expected a number above zero, such as \"0.5\", \"2\" or \"100m\""
                    .to_owned(),
            )
        };
        let millis = match text.strip_suffix('m') {
            Some(number) => scaled(number, 1),
            None => scaled(text, 1_000),
        };
        Ok(Self { text: text.to_owned(), millis: millis.filter(|m| *m > 0).ok_or_else(refused)? })
    }
}

/// An amount in the largest unit of 1024s that divides it.
pub(crate) fn shown(bytes: u64) -> String {
    let binary = UNITS.iter().filter(|(unit, size)| unit.ends_with('i') && bytes.is_multiple_of(*size));
    let largest = binary.max_by_key(|(_, size)| *size);
    largest.map_or_else(|| bytes.to_string(), |(unit, size)| format!("{}{unit}", bytes / size))
}

/// A decimal number times a unit, rounded up; nothing when it is no such number, or too large for 64 bits.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits =
        |part: &str| !part.is_empty() && part.len() <= 18 && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let denominator = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let numerator = whole.parse::<u128>().ok()? * denominator + fraction.parse::<u128>().ok()?;
    u64::try_from((numerator.checked_mul(u128::from(unit))?).div_ceil(denominator)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory() {
        for (text, bytes) in [
            ("128Mi", 128 << 20),
            ("1G", 1_000_000_000),
            ("0.5Gi", 512 << 20),
            ("4096", 4096),
            ("1k", 1000),
            ("0.0001", 1),
        ] {
            assert_eq!(text.parse::<Memory>().map(|m| m.bytes()), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "Mi",
            "-1",
            "0",
            "0Mi",
            "1.Mi",
            ".5G",
            "1 Mi",
            "1mb",
            "99Ei",
            "1e3",
            "9999999999999999999999",
        ] {
            assert!(bad.parse::<Memory>().is_err(), "{bad}");
        }
    }

    #[test]
    fn amounts_are_shown_as_they_are_written() {
        for text in ["1", "1000", "3Ki", "64Mi", "1Gi", "1Pi"] {
            assert_eq!(shown(text.parse::<Memory>().unwrap().bytes()), text);
        }
    }

    #[test]
    fn cpu() {
        for (text, millis) in [("100m", 100), ("2", 2000), ("0.5", 500), ("0.0001", 1)] {
            assert_eq!(text.parse::<Cpu>().map(|c| c.millis()), Ok(millis), "{text}");
        }
        for bad in ["", "m", "0", "0m", "-1", "1k", "two", "1.5.2"] {
            assert!(bad.parse::<Cpu>().is_err(), "{bad}");
        }
    }
}
