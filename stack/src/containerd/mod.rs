//! containerd, through its gRPC services of version 1 (the same in 1.7 and 2.x).
//!
//! ```text
//! layout (files) ── import ──> content store ── unpack ──> snapshots ── container, task ──> a process
//! ```

mod blob;
mod client;
mod container;
mod image;
mod import;
mod layout;
mod reference;
mod snapshot;
mod task;

pub use client::{Containerd, Runtime};
pub use container::{LABEL_ADDRESS, LABEL_DIGEST, LABEL_FUNCTION, LABEL_REPLICA, NewContainer};
pub use image::{Image, Process};
pub use layout::Layout;
pub use reference::normalise;
pub use task::Task;
