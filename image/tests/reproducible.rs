//! The same recipe and packages give the same bytes: wherever, whoever, whenever.
//!
//! Needs root, to become another user.

mod artifacts;

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use image::place;
use image::programs::Programs;
use image::recipe::Architecture;

/// Somebody who is not us: `nobody` on every distribution.
const OTHER_USER: u32 = 65534;

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Copies what git knows of the sources, and what it does not ignore.
fn copy_sources(from: &Path, to: &Path) {
    let list =
        Command::new("git").args(["ls-files", "-z", "-co", "--exclude-standard"]).current_dir(from).output();
    for name in String::from_utf8(list.unwrap().stdout).unwrap().split_terminator('\0') {
        let place = to.join(name);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        if from.join(name).is_file() {
            std::fs::copy(from.join(name), place).unwrap();
        }
    }
}

#[test]
fn programs_compiled_in_another_place_are_the_same_bytes() {
    let artifacts = artifacts::finished();
    let manifest = image::manifest::Manifest::load(&artifacts.manifest).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("somewhere else entirely");
    copy_sources(&place::source().unwrap(), &source);
    let mut build = Command::new("sh");
    build.args([
        "-c",
        "umask 077; exec \"$0\" build --only-programs --no-install",
        env!("CARGO_BIN_EXE_bothy"),
    ]);
    build
        .env("CARGO_TARGET_DIR", source.join("other target"))
        .env("TZ", "Pacific/Auckland")
        .env("LC_ALL", "C");
    run(build.current_dir(&source));
    let built = source.join("other target").join(Architecture::Amd64.rust_target()).join("device");
    let second = Programs::load(&built).unwrap();
    let bytes = [("init", second.init), ("stack", second.stack), ("watchdog", second.watchdog)];
    for (program, (name, bytes)) in manifest.programs.iter().zip(bytes) {
        assert_eq!(program.name, name);
        assert_eq!(program.sha256, image::digest::hex(&bytes), "{name} depends on where it was compiled");
    }
}

#[test]
fn an_image_built_by_another_user_elsewhere_is_the_same_bytes() {
    let first = artifacts::finished();
    let this = std::fs::metadata("/proc/self").unwrap();
    let uid = std::os::unix::fs::MetadataExt::uid(&this);
    assert_eq!(uid, 0, "this test needs root: run it as root, to build as another user");
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let home = folder.path().join("other home");
    let source = folder.path().join("a/deeper path");
    copy_sources(&place::source().unwrap(), &source);
    std::fs::create_dir(&home).unwrap();
    // The other user can reach neither our home nor the toolchain in it: he gets the tool and the programs.
    let tool = folder.path().join("bothy");
    std::fs::copy(env!("CARGO_BIN_EXE_bothy"), &tool).unwrap();
    let programs = folder.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    for program in ["init", "stack", "watchdog"] {
        std::fs::copy(first.programs.join(program), programs.join(program)).unwrap();
    }
    let manifest = folder.path().join("manifest.json");
    std::fs::copy(&first.manifest, &manifest).unwrap();
    run(Command::new("chown").arg("-R").arg(format!("{OTHER_USER}:{OTHER_USER}")).arg(folder.path()));
    chown(&home, Some(OTHER_USER), Some(OTHER_USER)).unwrap();

    let script = r#"umask 027; exec "$0" build --no-install --locked "$1" --programs "$2" --out "$3""#;
    let mut build = Command::new("sh");
    build.args(["-c", script]).arg(&tool).arg(&manifest).arg(&programs).arg(home.join("out"));
    build
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", &home)
        .env("CARGO_TARGET_DIR", &home);
    build.env("TZ", "America/St_Johns").env("LC_ALL", "tr_TR.UTF-8");
    run(build.current_dir(&source).uid(OTHER_USER).gid(OTHER_USER));

    let second = image::Artifacts::load(&home.join("out").join(&first.name)).unwrap();
    let pairs = [
        (&first.initrd, &second.initrd),
        (&first.image, &second.image),
        (&first.compressed, &second.compressed),
        (&first.manifest, &second.manifest),
        (&first.sbom, &second.sbom),
    ];
    for (one, two) in pairs {
        let same = Command::new("cmp").args([one, two]).output().unwrap();
        assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
    }
}
