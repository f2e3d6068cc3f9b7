//! What a function's process may see and do: the OCI runtime specification of an instance.

pub mod constraints;
mod limits;
mod seccomp;
mod spec;
mod user;

pub use limits::{Limits, Requests};
pub use spec::{Paths, specification};
pub use user::{Identity, read_file, resolve};
