//! QEMU as a library: a machine that boots one of our images (or any kernel), watched from outside.
//!
//! What a test or a person has of it is what a user has of a real one: a console, the network, the disk, the power
//! button. A [`Machine`] describes it, [`Machine::start`] gives a [`Running`] one, which ends when it is dropped.
//!
//! Faults of the emulator itself (QEMU 7.2 without hardware support) are known by what the guest prints when they
//! strike; they are errors of their own, [`Error::Emulator`], so that a caller can run again and count: see [`Fault`].

mod accel;
mod appliance;
mod console;
mod disk;
mod error;
mod fault;
mod firmware;
mod http;
mod machine;
mod plain;
mod probe;
mod qmp;
mod running;
mod shell;
mod writes;

pub use accel::Accel;
pub use appliance::{Appliance, Gateway, READY, SAMPLE_FUNCTION, SAMPLE_IMAGE, configuration};
pub use console::{Console, Line, Mark};
pub use disk::{Disk, Partition};
pub use error::Error;
pub use fault::{Fault, Retries};
pub use firmware::Firmware;
pub use http::{Answer, Client};
pub use machine::{Boot, Machine, Wire};
pub use qmp::Monitor;
pub use running::Running;
pub(crate) use running::free_port;
pub use shell::{SHELL_LIMIT, Shell};
pub use writes::{Cut, Entry, Random, SECTOR, Survivor, Writes};

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;
