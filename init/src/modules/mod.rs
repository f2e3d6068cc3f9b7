//! Kernel modules without kmod: what depmod's text files say, in which order to load, and loading.

mod glob;
mod index;
mod loader;

pub(crate) use index::Index;
pub(crate) use loader::{load, load_for, load_listed, modprobe};
