//! How many more instances the machine's memory holds. What runs is never taken back for that.

use crate::desired::Document;
use crate::reconcile::Usage;
use crate::runtime::{Limits, Requests};

/// What an instance takes of which nothing is known, and the least that one takes.
const UNKNOWN_BYTES: u64 = 16 << 20;
const LEAST_BYTES: u64 = 1 << 20;

/// Memory that new instances may take; nothing: nobody knows how much, and nothing is held back.
#[derive(Debug, Clone, Copy)]
pub struct Room(Option<u64>);

impl Room {
    /// What is free, without what is on its way to be taken.
    pub fn new(free: Option<u64>, coming: u64) -> Self {
        Self(free.map(|free| free.saturating_sub(coming)))
    }

    /// How many of so many instances there is memory for. It is theirs then.
    pub fn grant(&mut self, wanted: u64, each: u64) -> u64 {
        let Some(free) = &mut self.0 else { return wanted };
        let granted = wanted.min(*free / each.max(LEAST_BYTES));
        *free = free.saturating_sub(granted.saturating_mul(each));
        granted
    }
}

/// What one more instance of a function takes: what those take that there are, on average; else what it is limited to, or
/// asks for.
pub fn of_one(used: &[Usage], document: &Document) -> u64 {
    let own = used.iter().filter(|usage| document.key().as_ref() == Some(&usage.key));
    let (sum, count) = own
        .filter_map(|usage| usage.memory_bytes)
        .fold((0_u64, 0_u64), |(sum, count), bytes| (sum.saturating_add(bytes), count + 1));
    let submitted = || {
        let limit = Limits::parse(document.limits.as_ref()).unwrap_or_default().memory;
        let memory = limit.or(Requests::parse(document.requests.as_ref()).unwrap_or_default().memory);
        memory.and_then(|bytes| u64::try_from(bytes).ok())
    };
    let average = sum.checked_div(count).filter(|average| *average > 0);
    average.or_else(submitted).unwrap_or(UNKNOWN_BYTES).max(LEAST_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Amounts;
    use crate::key::Key;

    const MIB: u64 = 1 << 20;

    #[test]
    fn as_many_as_there_is_memory_for() {
        for (free, coming, wanted, each, granted) in [
            (None, 0, 50, 64, 50),
            (Some(200), 0, 2, 64, 2),
            (Some(200), 0, 9, 64, 3),
            (Some(200), 73, 9, 64, 1),
            (Some(200), 500, 9, 64, 0),
            (Some(63), 0, 1, 64, 0),
            (Some(0), 0, 1, 64, 0),
        ] {
            let mut room = Room::new(free.map(|free| free * MIB), coming * MIB);
            assert_eq!(room.grant(wanted, each * MIB), granted, "{free:?} {coming} {wanted} {each}");
        }
        assert_eq!(Room::new(Some(10 * MIB), 0).grant(99, 0), 10);
    }

    #[test]
    fn what_one_got_no_other_one_gets() {
        let mut room = Room::new(Some(100 * MIB), 0);
        assert_eq!([room.grant(2, 30 * MIB), room.grant(2, 30 * MIB), room.grant(9, 5 * MIB)], [2, 1, 2]);
    }

    #[test]
    fn one_more_takes_what_the_others_take() {
        let key = Key::new("f", "").unwrap();
        let used = |name: &str, replica, mib: Option<u64>| Usage {
            key: Key::new(name, "").unwrap(),
            replica,
            cpu_seconds: None,
            memory_bytes: mib.map(|mib| mib * MIB),
        };
        let amounts = |memory: &str| Some(Amounts { memory: Some(memory.into()), cpu: None });
        let mut document = Document::new(&key, "f:1");
        assert_eq!(of_one(&[], &document), 16 * MIB);
        document.requests = amounts("24Mi");
        assert_eq!(of_one(&[used("f", 0, None)], &document), 24 * MIB);
        document.limits = amounts("64Mi");
        assert_eq!(of_one(&[used("g", 0, Some(5))], &document), 64 * MIB);
        let all =
            [used("f", 0, Some(10)), used("f", 1, Some(20)), used("f", 2, None), used("g", 0, Some(500))];
        assert_eq!(of_one(&all, &document), 15 * MIB);
        assert_eq!(of_one(&[used("f", 0, Some(0))], &document), 64 * MIB);
    }
}
