//! The same recipe, packages and programs give the same bytes: wherever, whoever, whenever.
//!
//! Needs root, to become another user.

mod artifacts;

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use artifacts::{copy_sources, finished, run};
use image::programs::Programs;

/// Somebody who is not us: `nobody` on every distribution.
const OTHER_USER: u32 = 65534;

#[test]
fn an_image_built_by_another_user_elsewhere_is_the_same_bytes() {
    let first = finished();
    let this = std::fs::metadata("/proc/self").unwrap();
    let uid = std::os::unix::fs::MetadataExt::uid(&this);
    assert_eq!(uid, 0, "this test needs root: run it as root, to build as another user");
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let home = folder.path().join("other home");
    let source = folder.path().join("a/deeper path");
    copy_sources(&source);
    std::fs::create_dir(&home).unwrap();
    // The other user can reach neither our home nor the toolchain in it: he gets the tool and the programs.
    let tool = folder.path().join("bothy");
    std::fs::copy(env!("CARGO_BIN_EXE_bothy"), &tool).unwrap();
    let programs = folder.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let names = Programs::load(&first.programs).unwrap().named().map(|(name, _)| name);
    for program in names.into_iter().chain(["origin.json"]) {
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
