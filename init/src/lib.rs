//! The init of a Bothy machine: initrd stage, PID 1, the supervisor next to it, `modprobe` and `bothyctl`.
//!
//! One program, told apart by the name it is called by; [`main`] is its entry. `README.md` beside this crate shows how
//! the parts fit.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod block;
mod board;
mod bothyctl;
mod cgroup;
mod cmdline;
mod console;
mod descriptor;
mod error;
mod file;
mod initrd;
mod link;
pub mod mapper;
mod modules;
mod mounts;
mod net;
mod pid1;
mod power;
mod process;
mod program;
mod request;
mod service;
mod shelf;
mod storage;
mod supervise;
mod uevent;
mod usage;
mod uuid;
pub mod verity;
mod watchdog;

pub use error::Error;
pub use program::main;
