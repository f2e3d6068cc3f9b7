//! The image has no shell, and the debug flavour differs from it by one file.

mod artifacts;

use std::collections::BTreeSet;
use std::path::PathBuf;

use artifacts::finished;
use image::Artifacts;
use image::tree::{Kind, Tree};

fn plain() -> Tree {
    let root = std::env::var_os("BOTHY_ROOTFS").map(PathBuf::from);
    Tree::read_folder(&root.expect("BOTHY_ROOTFS names no unpacked image: run `cargo bothy test`")).unwrap()
}

/// The image of the tests that need a shell: the debug flavour, and the function `shell`.
fn with_shell() -> Tree {
    let path = std::env::var_os("BOTHY_SHELL_ARTIFACTS").map(PathBuf::from);
    let path = path.expect("BOTHY_SHELL_ARTIFACTS names no finished image: run `cargo bothy test`");
    let artifacts = Artifacts::load(path.parent().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    artifacts.unpack_root(&folder.path().join("root")).unwrap();
    Tree::read_folder(&folder.path().join("root")).unwrap()
}

#[test]
fn the_image_has_no_shell() {
    const SHELLS: [&str; 9] = ["sh", "ash", "bash", "dash", "busybox", "zsh", "ksh", "mksh", "rbash"];
    let root = plain();
    let found: Vec<_> =
        root.iter().filter(|(path, _)| SHELLS.contains(&path.rsplit('/').next().unwrap())).collect();
    assert!(found.is_empty(), "{found:?}");
    // And nothing that would need one.
    let scripts =
        root.iter().filter(|(_, node)| matches!(&node.kind, Kind::File(text) if text.starts_with(b"#!")));
    assert_eq!(scripts.map(|(path, _)| path).collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(finished().name == "vm-x86_64" && root.get("usr/bin/bothyctl").is_some());
}

#[test]
fn the_debug_flavour_differs_by_one_file() {
    let (plain, other) = (plain(), with_shell());
    // What comes with the function, which the flavour itself has not.
    let of_the_function = |path: &str| {
        path.starts_with("usr/share/bothy/images/shell") || path.starts_with("usr/share/doc/busybox-static")
    };
    let paths: BTreeSet<&str> = plain.iter().chain(other.iter()).map(|(path, _)| path).collect();
    let differing: Vec<&str> = paths
        .into_iter()
        .filter(|path| !of_the_function(path) && plain.get(path) != other.get(path))
        .collect();
    assert_eq!(differing, ["usr/bin/busybox"]);
    assert!(plain.get("usr/bin/busybox").is_none());
}
