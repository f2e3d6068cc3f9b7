//! The finished image that the tests in this folder look at.

use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Runs a program to its end.
///
/// # Panics
/// It fails.
#[allow(dead_code, reason = "not every test runs programs")]
pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Copies the sources that git knows of, and those that it does not ignore.
///
/// # Panics
/// Something cannot be copied.
#[allow(dead_code, reason = "not every test needs the sources")]
pub fn copy_sources(to: &Path) {
    let from = image::place::source().unwrap();
    let mut list = Command::new("git");
    let list =
        list.args(["ls-files", "-z", "-co", "--exclude-standard"]).current_dir(&from).output().unwrap();
    for name in String::from_utf8(list.stdout).unwrap().split_terminator('\0') {
        let place = to.join(name);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        if from.join(name).is_file() {
            std::fs::copy(from.join(name), place).unwrap();
        }
    }
}
