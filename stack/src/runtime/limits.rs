//! Memory and processor time: from the API's quantities to what the runtime takes.

use provisioning::{Cpu, Memory};

use crate::desired::Amounts;
use crate::error::{Error, Result};

/// Period of the processor quota, the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// Least memory limit in bytes: below it no process starts, and the runtime's error would not say why.
const LEAST_MEMORY: u64 = 1 << 20;

/// Least quota the kernel takes (kernel/sched/core.c, `min_cfs_quota_period`).
const LEAST_QUOTA_US: u64 = 1_000;

/// An instance's limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes.
    pub memory: Option<i64>,
    /// Processor time in microseconds per [`Limits::PERIOD_US`].
    pub quota: Option<i64>,
}

impl Limits {
    /// Period of the quota in microseconds.
    pub const PERIOD_US: u64 = PERIOD_US;

    /// Reads what was submitted; an error names the field, the value and what was expected.
    pub fn parse(amounts: Option<&Amounts>) -> Result<Self> {
        let Some(amounts) = amounts else { return Ok(Self::default()) };
        let memory = match given(amounts.memory.as_ref()) {
            None => None,
            Some(text) => {
                let bytes =
                    text.parse::<Memory>().map_err(|e| wrong("memory", text, &e.to_string()))?.bytes();
                if bytes < LEAST_MEMORY {
                    return Err(wrong("memory", text, "is less than a process needs to start (1Mi)"));
                }
                Some(
                    i64::try_from(bytes)
                        .map_err(|_| wrong("memory", text, "is more than any machine has"))?,
                )
            }
        };
        let quota = match given(amounts.cpu.as_ref()) {
            None => None,
            Some(text) => {
                let millis = text.parse::<Cpu>().map_err(|e| wrong("cpu", text, &e.to_string()))?.millis();
                let quota = millis.checked_mul(PERIOD_US / 1_000).map(|quota| quota.max(LEAST_QUOTA_US));
                let quota = quota.and_then(|quota| i64::try_from(quota).ok());
                Some(quota.ok_or_else(|| wrong("cpu", text, "is more than any machine has"))?)
            }
        };
        Ok(Self { memory, quota })
    }
}

/// Clients send an empty text for "no limit".
fn given(text: Option<&String>) -> Option<&str> {
    text.map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn wrong(field: &str, text: &str, reason: &str) -> Error {
    Error::Invalid { what: format!("{field} {text:?}"), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(memory: &str, cpu: &str) -> Result<Limits> {
        Limits::parse(Some(&Amounts { memory: Some(memory.into()), cpu: Some(cpu.into()) }))
    }

    #[test]
    fn quantities() {
        assert_eq!(parse("128Mi", "100m").unwrap(), Limits { memory: Some(128 << 20), quota: Some(10_000) });
        assert_eq!(parse("1G", "2").unwrap(), Limits { memory: Some(1_000_000_000), quota: Some(200_000) });
        assert_eq!(parse("", "").unwrap(), Limits::default());
        assert_eq!(parse("", "1m").unwrap().quota, Some(1_000));
        assert_eq!(Limits::parse(None).unwrap(), Limits::default());
        for (memory, cpu) in [("4096", ""), ("lots", ""), ("", "many"), ("-1Gi", ""), ("15Ei", "")] {
            assert!(parse(memory, cpu).is_err(), "{memory} {cpu}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(memory in ".{0,30}", cpu in ".{0,30}") {
            let _ = parse(&memory, &cpu);
        }

        #[test]
        fn mebibytes_are_exact(n in 1u32..1_000_000) {
            prop_assert_eq!(parse(&format!("{n}Mi"), "").unwrap().memory, Some(i64::from(n) << 20));
        }
    }
}
