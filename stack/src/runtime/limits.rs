//! Memory and processor time: from the API's quantities to what the runtime takes. A limit is never passed; a request
//! counts where there is not enough for all.

use provisioning::{Cpu, Memory};

use crate::desired::Amounts;
use crate::error::{Error, Result};

/// Period of the processor quota, the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// Least memory limit in bytes: below it no process starts, and the runtime's error would not say why.
const LEAST_MEMORY: i64 = 1 << 20;

/// Least quota the kernel takes (kernel/sched/core.c, `min_cfs_quota_period`).
const LEAST_QUOTA_US: u64 = 1_000;

/// Weight of a group that says nothing, and the largest (cgroup-v2.rst, `cpu.weight`).
const WEIGHT: u64 = 100;
const MOST_WEIGHT: u64 = 10_000;

const TOO_MUCH: &str = "is more than any machine has";

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
        let memory = given(amounts.memory.as_ref()).map(|text| match bytes(text)? {
            bytes if bytes < LEAST_MEMORY => {
                Err(wrong("memory", text, "is less than a process needs to start (1Mi)"))
            }
            bytes => Ok(bytes),
        });
        let quota = given(amounts.cpu.as_ref()).map(|text| {
            let quota = millis(text)?.checked_mul(PERIOD_US / 1_000).map(|quota| quota.max(LEAST_QUOTA_US));
            let quota = quota.and_then(|quota| i64::try_from(quota).ok());
            quota.ok_or_else(|| wrong("cpu", text, TOO_MUCH))
        });
        Ok(Self { memory: memory.transpose()?, quota: quota.transpose()? })
    }
}

/// What an instance is promised where there is not enough for all functions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Memory in bytes that is taken from it last.
    pub memory: Option<i64>,
    /// Its share of the processor, in the kernel's weights: a function without a request has [`WEIGHT`], and one more for
    /// each thousandth of a processor.
    pub weight: Option<u64>,
}

impl Requests {
    /// Reads what was submitted; an error names the field, the value and what was expected.
    pub fn parse(amounts: Option<&Amounts>) -> Result<Self> {
        let Some(amounts) = amounts else { return Ok(Self::default()) };
        let memory = given(amounts.memory.as_ref()).map(bytes).transpose()?;
        let cpu = given(amounts.cpu.as_ref()).map(millis).transpose()?;
        let weight = cpu.map(|millis| millis.saturating_add(WEIGHT).min(MOST_WEIGHT));
        Ok(Self { memory, weight })
    }
}

fn bytes(text: &str) -> Result<i64> {
    let bytes = text.parse::<Memory>().map_err(|error| wrong("memory", text, &error.to_string()))?.bytes();
    i64::try_from(bytes).map_err(|_| wrong("memory", text, TOO_MUCH))
}

fn millis(text: &str) -> Result<u64> {
    Ok(text.parse::<Cpu>().map_err(|error| wrong("cpu", text, &error.to_string()))?.millis())
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

    #[test]
    fn promises() {
        let parse = |memory: &str, cpu: &str| {
            Requests::parse(Some(&Amounts { memory: Some(memory.into()), cpu: Some(cpu.into()) }))
        };
        assert_eq!(parse("64Mi", "100m").unwrap(), Requests { memory: Some(64 << 20), weight: Some(200) });
        assert_eq!(parse("1Ki", "").unwrap(), Requests { memory: Some(1024), weight: None });
        assert_eq!(parse("", "64").unwrap().weight, Some(10_000));
        assert_eq!(Requests::parse(None).unwrap(), Requests::default());
        for (memory, cpu, named) in [("lots", "", "memory \"lots\""), ("", "many", "cpu \"many\"")] {
            let error = parse(memory, cpu).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(memory in ".{0,30}", cpu in ".{0,30}") {
            let _ = parse(&memory, &cpu);
            let _ = Requests::parse(Some(&Amounts { memory: Some(memory), cpu: Some(cpu) }));
        }

        #[test]
        fn mebibytes_are_exact(n in 1u32..1_000_000) {
            prop_assert_eq!(parse(&format!("{n}Mi"), "").unwrap().memory, Some(i64::from(n) << 20));
        }
    }
}
