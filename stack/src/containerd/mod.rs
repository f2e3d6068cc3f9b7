//! containerd, through its gRPC services of version 1 (the same in 1.7 and 2.x).
//!
//! ```text
//! layout (files) ── import ──> content store ── unpack ──> snapshots ── container, task ──> a process
//! registry ──────┘ pull
//! ```

mod blob;
mod client;
mod container;
mod image;
mod import;
mod layout;
mod lease;
mod namespace;
mod pull;
mod record;
mod reference;
mod room;
mod snapshot;
mod task;
mod turns;

pub use client::{Containerd, Runtime};
pub use container::{LABEL_ADDRESS, LABEL_DIGEST, LABEL_FUNCTION, LABEL_REPLICA, NewContainer};
pub use image::{Image, Process};
pub use import::is_damage;
pub use layout::Layout;
pub use pull::{Former, Supply};
pub use record::Record;
pub use reference::{HUB, Reference, is_digest, normalise};
pub use room::Plea;
pub use task::Task;
