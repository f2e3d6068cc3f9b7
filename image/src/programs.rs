//! Our own programs for the device: built by cargo as static programs, with bytes that do not depend on where.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::recipe::Architecture;
use crate::squashfs::Compression;

/// The programs and the crates that they are in.
const PROGRAMS: [(&str, &str); 3] = [("init", "init"), ("stack", "stack"), ("watchdog", "stack")];

/// The finished programs.
pub struct Programs {
    /// PID 1, supervisor and `bothyctl`.
    pub init: Vec<u8>,
    /// Gateway and log service.
    pub stack: Vec<u8>,
    /// What function images begin with.
    pub watchdog: Vec<u8>,
}

impl Programs {
    /// Takes programs that were built before, from a folder.
    ///
    /// # Errors
    /// One of them is missing.
    pub fn load(folder: &Path) -> Result<Programs> {
        let read = |program: &str| {
            let path = folder.join(program);
            std::fs::read(&path).map_err(Error::read(&path))
        };
        Ok(Programs { init: read("init")?, stack: read("stack")?, watchdog: read("watchdog")? })
    }
}

fn folder(source: &Path, architecture: Architecture, compression: Compression) -> PathBuf {
    crate::place::target(source).join(architecture.rust_target()).join(profile(compression))
}

/// The cargo profile (see the workspace's `Cargo.toml`) for an image of this kind.
fn profile(compression: Compression) -> &'static str {
    match compression {
        Compression::Development => "device",
        Compression::Release => "device-release",
    }
}

/// Builds the programs from the sources below `source`, and returns the folder that they are in.
///
/// # Errors
/// cargo fails; what it says has been shown.
pub fn build(source: &Path, architecture: Architecture, compression: Compression) -> Result<PathBuf> {
    let target_dir =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| source.join("target"), PathBuf::from);
    let cargo_home =
        std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(home()?.join(".cargo")));
    let target = architecture.rust_target();
    // What the compiler writes into panic messages must not tell where this was built. The longest prefix has to
    // come last: the last that matches wins.
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    for (path, name) in
        [(cargo_home, "cargo"), (Some(source.to_owned()), "bothy"), (Some(target_dir.clone()), "target")]
    {
        flags.extend(path.map(|p| format!("--remap-path-prefix={}=/{name}", p.display())));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(source).args([
        "build",
        "--quiet",
        "--locked",
        "--profile",
        "device",
        "--target",
        target,
    ]);
    for (program, package) in PROGRAMS {
        command.args(["--package", package, "--bin", program]);
    }
    command
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTFLAGS")
        .env("SOURCE_DATE_EPOCH", "0");
    command.stdin(Stdio::null());
    let status = command.status().map_err(|source| Error::Start { program: "cargo build".into(), source })?;
    if !status.success() {
        let stderr = "what cargo said stands above".to_owned();
        return Err(Error::Program {
            program: "cargo build of the device's programs".into(),
            status,
            stderr,
        });
    }
    Ok(folder(source, architecture, compression))
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from)
}

/// Files that decide what the programs are: everything that cargo reads of the sources.
pub fn sources(source: &Path) -> Vec<PathBuf> {
    let names = ["Cargo.toml", "Cargo.lock", "init", "stack", "provisioning"];
    names.iter().map(|name| source.join(name)).collect()
}
