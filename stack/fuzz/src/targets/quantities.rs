//! Memory and processor time, as deployments and bothy.toml have them.

use provisioning::{Cpu, Memory};

use crate::desired::Amounts;
use crate::runtime::Limits;

/// Units by the power that they are: of 1024 with an i, of 1000 without.
const PREFIXES: &str = "kMGTPE";

pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let memory = text.parse::<Memory>();
    assert_eq!(memory.as_ref().ok().map(Memory::bytes), bytes(text));
    let cpu = text.parse::<Cpu>();
    let thousandths = match text.strip_suffix('m') {
        Some(number) => rounded_up(number, 1),
        None => rounded_up(text, 1000),
    };
    assert_eq!(cpu.as_ref().ok().map(Cpu::millis), thousandths);
    for shown in [memory.map(|memory| memory.to_string()), cpu.map(|cpu| cpu.to_string())] {
        assert!(shown.is_ok_and(|shown| shown == text) || bytes(text).is_none() || thousandths.is_none());
    }
    limits(text);
}

/// What the runtime is told is what was meant, or it is refused.
fn limits(text: &str) {
    let memory = Amounts { memory: Some(text.to_owned()), cpu: None };
    let cpu = Amounts { memory: None, cpu: Some(text.to_owned()) };
    if let Ok(limits) = Limits::parse(Some(&memory)) {
        assert_eq!(limits.memory.map(|memory| memory as u64), bytes(text.trim()));
        assert!(limits.memory.is_none_or(|memory| memory >= 1 << 20) && limits.quota.is_none());
    }
    if let Ok(limits) = Limits::parse(Some(&cpu)) {
        assert!(limits.quota.is_none_or(|quota| quota >= 1000) && limits.memory.is_none());
        assert_eq!(limits.quota.is_none(), text.trim().is_empty());
    }
}

/// The same by another way: the unit first, then long multiplication of the digits.
fn bytes(text: &str) -> Option<u64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text.as_bytes()[number.len()..] {
        [] => 1,
        [b'k'] => 1000,
        [b'K', b'i'] => 1024,
        [prefix, rest @ ..] => {
            let power = PREFIXES.find(char::from(*prefix)).filter(|power| *power > 0)? as u32 + 1;
            match rest {
                [] => 1000_u64.pow(power),
                [b'i'] => 1024_u64.pow(power),
                _ => return None,
            }
        }
    };
    rounded_up(number, unit)
}

fn rounded_up(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let fits =
        |part: &str| (1..=18).contains(&part.len()) && part.chars().all(|digit| digit.is_ascii_digit());
    if !fits(whole) || !fits(fraction) {
        return None;
    }
    // Digit for digit from the left, a carry of what is behind the point from the right.
    let mut carry = 0_u128;
    let mut rest = false;
    for digit in fraction.bytes().rev() {
        let sum = u128::from(digit - b'0') * u128::from(unit) + carry;
        (carry, rest) = (sum / 10, rest || !sum.is_multiple_of(10));
    }
    let whole = whole.bytes().fold(0_u128, |sum, digit| sum * 10 + u128::from(digit - b'0'));
    let all = whole * u128::from(unit) + carry + u128::from(rest);
    u64::try_from(all).ok().filter(|all| *all > 0)
}
