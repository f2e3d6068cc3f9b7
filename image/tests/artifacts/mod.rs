//! The finished image that the tests in this folder look at.

use std::path::PathBuf;

use image::Artifacts;

/// The image that `bothy test` has built.
///
/// # Panics
/// The tests were not started by `bothy test`.
pub fn finished() -> Artifacts {
    let path = std::env::var_os("BOTHY_ARTIFACTS").map(PathBuf::from);
    let path = path.expect("BOTHY_ARTIFACTS names no finished image: run `cargo bothy test`");
    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
}
