//! The device's programs are the same bytes wherever they are compiled.

mod artifacts;

/// It compiles all of them and all that they are linked from once more.
mod long {
    use std::process::Command;

    use image::programs::Programs;
    use image::recipe::Architecture;

    use crate::artifacts::{copy_sources, finished, run};

    #[test]
    fn programs_compiled_in_another_place_are_the_same_bytes() {
        let artifacts = finished();
        let manifest = image::manifest::Manifest::load(&artifacts.manifest).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("somewhere else entirely");
        copy_sources(&source);
        let mut build = Command::new("sh");
        let script =
            "umask 077; exec \"$0\" build --only-programs --no-install --locked \"$1\" --cache \"$2\"";
        build
            .args(["-c", script, env!("CARGO_BIN_EXE_bothy")])
            .arg(&artifacts.manifest)
            .arg(folder.path().join("cache"));
        build.env("CARGO_TARGET_DIR", source.join("other target"));
        build.env("TZ", "Pacific/Auckland").env("LC_ALL", "tr_TR.UTF-8");
        run(build.current_dir(&source));
        let built = source.join("other target").join(Architecture::Amd64.rust_target()).join("device");
        let second = Programs::load(&built).unwrap();
        for (program, (name, bytes)) in manifest.programs.iter().zip(second.named()) {
            assert_eq!(program.name, name);
            assert_eq!(program.sha256, image::digest::hex(bytes), "{name} depends on where it was compiled");
        }
    }
}
