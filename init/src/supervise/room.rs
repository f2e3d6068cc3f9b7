//! How much room is left for data: said while there is still some.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::statvfs;
use tokio::task::spawn_blocking;

use crate::board::Board;

/// Time between two looks, and before the first.
const LOOK: Duration = Duration::from_secs(20);
/// Free bytes below which it is said, where a twentieth of all is more.
const LOW: u64 = 128 << 20;

/// Looks for ever, while data is `on_disk`: before it is mounted, `/var` is a folder of the root, which is always full.
pub(super) async fn watch(on_disk: Rc<Cell<bool>>, board: Board) {
    loop {
        tokio::time::sleep(LOOK).await;
        if !on_disk.get() {
            continue;
        }
        // A disk that does not answer must not hold the event loop.
        if let Ok(Ok(found)) = spawn_blocking(|| statvfs("/var")).await {
            let unit = found.f_frsize;
            let bytes = |blocks: u64| blocks.saturating_mul(unit);
            board.problem("room", complaint(bytes(found.f_bavail), bytes(found.f_blocks)));
        }
    }
}

/// What a person has to know of `free` bytes of `all`.
fn complaint(free: u64, all: u64) -> Option<String> {
    if free >= LOW.min(all / 20) {
        return None;
    }
    Some(format!(
        "data is full: {} of {} MiB are free; remove functions that nobody needs, or copy the disk to a larger one",
        free >> 20,
        all >> 20
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_little_room_is_said() {
        const GIB: u64 = 1 << 30;
        assert_eq!(complaint(GIB, 2 * GIB), None);
        // A large disk is not full with a twentieth, a small one not with half.
        assert_eq!(complaint(GIB, 64 * GIB), None);
        assert_eq!(complaint(64 << 20, 128 << 20), None);
        let text = complaint(5 << 20, 2 * GIB).unwrap();
        assert!(text.starts_with("data is full: 5 of 2048 MiB are free; "), "{text}");
        assert!(complaint(0, 0).is_none());
    }
}
