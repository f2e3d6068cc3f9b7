//! Asynchronous calls on NATS JetStream: what the gateway that takes them and the worker that makes them agree on.
//!
//! ```text
//! stream OF_QUEUE        calls.QUEUE.NAMESPACE.FUNCTION   the calls that wait, run or wait for their next attempt
//! stream CALLS           ledger.lines                     what became of calls, many lines in a message (`ledger`)
//! stream DEAD_LETTERS    dead.QUEUE.NAMESPACE.FUNCTION    the calls that were given up, with the reason (`dead`)
//! stream BODIES          bodies.NAME                      the bodies that are too large for a message (`bodies`)
//! ```
//!
//! What is promised: a call that was answered with 202 is on disk, and runs at least once. See docs/asynchronous.md.

mod annotations;
mod bodies;
mod book;
mod broker;
mod call;
mod dead;
mod disk;
mod frame;
mod index;
mod ledger;
mod not_stored;
mod policy;
mod sizes;
mod subject;
mod sweep;
mod wish;

pub use annotations::{check, named};
pub use bodies::{Bodies, LARGEST_INLINE_BYTES, causes};
pub use book::Book;
pub use broker::Broker;
pub use call::{Call, Origin, Payload};
pub use dead::Letter;
pub use disk::Disk;
pub use index::{Index, Which};
pub use ledger::{Line, Place, Stage};
pub use not_stored::NotStored;
pub use policy::{Answer, Overrides, Policy, Verdict};
pub use subject::{DEAD_LETTERS, Route, stream};
pub use sweep::{keep_swept, sweep};
pub use wish::{CANCEL, RUNNING, WAKE, Wish};

/// Longest identifier of a call, in bytes: it stands in each line about it.
pub const LONGEST_CALL_ID_BYTES: usize = 256;

/// Largest message of a call: a body as above, and a head in which each character of headers, path and URL may take two bytes.
pub const LARGEST_MESSAGE_BYTES: usize = LARGEST_INLINE_BYTES + (192 << 10);

/// Milliseconds since 1970.
pub fn now() -> u64 {
    crate::timestamp::now_micros() / 1000
}
