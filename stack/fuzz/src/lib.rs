//! What is fuzzed, and what has to be true of it whatever comes in. See README.md.
//!
//! This file is the root of two crates: of the library that the targets of libFuzzer link, and of the test `corpora` of
//! the crate `stack`, which runs the same functions over the same corpora without libFuzzer.

#![allow(missing_docs, reason = "what is public here is so for the targets alone")]

#[cfg(test)]
mod corpora;
#[cfg(test)]
mod mutation;
pub mod targets;

// What is not public in `stack` is taken by path, as the watchdog does: nothing is public for the sake of this. These are
// the names that such a file calls `crate::NAME`.
pub use stack::{
    base64, containerd, desired, duration, error, key, object, random, reconcile, runtime, timestamp,
};

#[path = "../../src/gateway"]
pub mod gateway {
    pub mod auth;
    pub mod callback;
    pub mod check;
    pub mod headers;
    pub mod query;
    pub mod router;
    pub mod target;
    pub mod wire;

    pub mod logs {
        pub mod entry;
        pub mod wanted;
    }
}

#[path = "../../src/queue"]
pub mod queue {
    pub mod ledger;

    pub use stack::queue::now;
}

#[path = "../../src/registry"]
pub mod registry {
    pub mod challenge;
    pub mod credentials;
    pub mod location;
}

// The watchdog's, which call each other from the root.
#[path = "../../src/bin/watchdog/config.rs"]
pub mod config;
#[path = "../../src/bin/watchdog/environment.rs"]
pub mod environment;
#[path = "../../src/bin/watchdog/mode.rs"]
pub mod mode;
#[path = "../../src/bin/watchdog/percent.rs"]
pub mod percent;
#[path = "../../src/bin/watchdog/range.rs"]
pub mod range;
#[path = "../../src/bin/watchdog/variables.rs"]
pub mod variables;
