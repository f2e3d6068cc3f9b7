//! The harness of the tests of whole machines: a [`Case`] boots the image that `bothy` built, on disks of its own, and
//! has of it only what a user has: a console, HTTP, the disk, the power button.
//!
//! Run them with `cargo bothy test`, which builds the image and says where it is. Each file in `tests/` is one
//! behaviour. A test runs again only when the emulator failed in one of the two ways that
//! [`Fault`](image::qemu::Fault) knows; such runs are printed and counted.

mod calls;
mod case;
mod checks;
mod history;
mod inside;
pub mod lan;
mod lock;
mod recording;
mod used;

pub use calls::{call_is_done, call_later, end_of_call};
pub use case::{Case, PASSWORD, SHELL_IMAGE, case, shell_case};
pub use checks::{assert_clean, debugfs, journal};
pub use history::{Accepted, Act, History, Window, choose};
pub use image::qemu::{Gateway, Mark, Running, SAMPLE_FUNCTION, SAMPLE_IMAGE, Shell, configuration};
pub use inside::{Inside, Process, shell};
pub use recording::Recording;

/// What figlet makes of the word `Bothy`.
pub const BOTHY: &str = r" ____        _   _           
| __ )  ___ | |_| |__  _   _ 
|  _ \ / _ \| __| '_ \| | | |
| |_) | (_) | |_| | | | |_| |
|____/ \___/ \__|_| |_|\__, |
                       |___/ 
";
