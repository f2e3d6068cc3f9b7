//! Builds bootable Bothy images from recipes: without root, and with the same bytes every time.
//!
//! apt resolves and downloads Debian's packages; everything after that happens in memory: packages are unpacked into
//! a [`tree::Tree`], the recipe's [`select::Packages::select`] takes what the device needs, and [`build`] turns it into
//! a root file system with its verity tree, a unified kernel image and a disk.
//!
//! The command line tool `bothy` and the tests of whole machines use this crate as a library.

pub mod apt;
pub mod artifacts;
pub mod bench;
pub mod build;
pub mod config;
pub mod deb;
pub mod digest;
pub mod disk;
pub mod elf;
pub mod error;
pub mod fat;
pub mod flavour;
pub mod gpt;
pub mod host;
pub mod kmod;
pub mod manifest;
pub mod oci;
pub mod place;
pub mod process;
pub mod programs;
pub mod progress;
pub mod qemu;
pub mod recipe;
pub mod rootfs;
pub mod run;
pub mod sbom;
pub mod scripts;
pub mod select;
pub mod squashfs;
pub mod stamp;
pub mod sysroot;
pub mod testing;
pub mod tools;
pub mod tree;
pub mod uki;
pub mod unpacked;
pub mod verity;

pub use artifacts::Artifacts;
pub use error::{Error, Result};
