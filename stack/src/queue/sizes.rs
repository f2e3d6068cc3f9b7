//! What the streams may take of the disk.

/// What the streams may take of the file system that they lie on, each within its own bounds.
const QUEUE_SHARE: Share = Share { part: 8, least: 16 << 20, most: 1 << 30 };
const BODIES_SHARE: Share = Share { part: 8, least: 16 << 20, most: 4 << 30 };
const DEAD_SHARE: Share = Share { part: 16, least: 8 << 20, most: 512 << 20 };
const LEDGER_SHARE: Share = Share { part: 64, least: 4 << 20, most: 64 << 20 };

struct Share {
    part: u64,
    least: u64,
    most: u64,
}

/// Bytes that each stream may take; -1: as many as there are.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// A queue's.
    pub queue: i64,
    /// That of large bodies.
    pub bodies: i64,
    /// That of dead letters.
    pub dead: i64,
    /// The ledger.
    pub ledger: i64,
}

impl Sizes {
    /// On a disk of that size; none in a cluster, whose limits are its own. The ledger always has one, because nothing else ends it.
    pub fn new(disk: Option<u64>, queue: Option<u64>) -> Self {
        let of =
            |share: Share| disk.map_or(-1, |size| (size / share.part).clamp(share.least, share.most) as i64);
        let queue = queue.map_or_else(|| of(QUEUE_SHARE), |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        let ledger = Some(of(LEDGER_SHARE)).filter(|bytes| *bytes > 0).unwrap_or(LEDGER_SHARE.most as i64);
        Self { queue, bodies: of(BODIES_SHARE), dead: of(DEAD_SHARE), ledger }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fit_the_disk() {
        let small = Sizes::new(Some(256 << 20), None);
        assert_eq!(
            (small.queue, small.bodies, small.dead, small.ledger),
            (32 << 20, 32 << 20, 16 << 20, 4 << 20)
        );
        let large = Sizes::new(Some(1 << 40), Some(5));
        assert_eq!((large.queue, large.bodies, large.dead, large.ledger), (5, 4 << 30, 512 << 20, 64 << 20));
        let cluster = Sizes::new(None, None);
        assert_eq!((cluster.queue, cluster.bodies, cluster.dead, cluster.ledger), (-1, -1, -1, 64 << 20));
    }
}
