//! Our own programs for the device: built by cargo as static programs, with bytes that do not depend on where.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::recipe::Architecture;
use crate::squashfs::Compression;
use crate::sysroot::Sysroot;

/// The programs and the crates that they are in.
const PROGRAMS: [(&str, &str); 4] =
    [("init", "init"), ("stack", "stack"), (SHIM, "stack"), ("watchdog", "stack")];

/// containerd makes this name of the runtime's, `io.containerd.bothy.v2`.
pub const SHIM: &str = "containerd-shim-bothy-v2";

/// The finished programs.
pub struct Programs {
    /// PID 1, supervisor and `bothyctl`.
    pub init: Vec<u8>,
    /// Gateway and log service.
    pub stack: Vec<u8>,
    /// What stands between containerd and a function's process.
    pub shim: Vec<u8>,
    /// What function images begin with.
    pub watchdog: Vec<u8>,
    /// What they were made of.
    pub origin: Origin,
}

/// What programs were made of; lies beside them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Name and version of the compiler: of all that is not in the recipe or the sources, only it decides the bytes.
    pub compiler: String,
    /// The crates that they are linked from.
    pub crates: Vec<Crate>,
}

impl Origin {
    /// Name of the file.
    const FILE: &str = "origin.json";
}

/// A crate of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crate {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// SHA-256 of its package, lower case hexadecimal.
    pub sha256: String,
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
        // Programs from elsewhere need not tell.
        let origin = std::fs::read(folder.join(Origin::FILE)).ok();
        let origin = origin.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let (init, stack) = (read("init")?, read("stack")?);
        Ok(Programs { init, stack, shim: read(SHIM)?, watchdog: read("watchdog")?, origin })
    }

    /// The programs by the names of their files.
    pub fn named(&self) -> [(&'static str, &[u8]); 4] {
        let bytes = [&self.init, &self.stack, &self.shim, &self.watchdog];
        std::array::from_fn(|place| (PROGRAMS[place].0, bytes[place].as_slice()))
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

/// What is checked out there, where that is a repository of git's.
fn commit(source: &Path) -> Option<String> {
    let told = Command::new("git").arg("-C").arg(source).args(["rev-parse", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(told.stdout).ok()?.trim().to_owned();
    (told.status.success() && commit.len() >= 40).then_some(commit)
}

/// Builds the programs from the sources below `source`, and returns the folder that they are in.
///
/// # Errors
/// cargo fails; what it says has been shown.
pub fn build(
    source: &Path,
    architecture: Architecture,
    compression: Compression,
    sysroot: &Sysroot,
) -> Result<PathBuf> {
    let target_dir = crate::place::target(source);
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
    command.current_dir(source).args(["build", "--quiet", "--locked", "--profile", profile(compression)]);
    command.args(["--target", target]).arg("--target-dir").arg(&target_dir);
    // In what is published only: otherwise every commit would compile them anew.
    if compression == Compression::Release
        && let Some(commit) = commit(source)
    {
        command.env("BOTHY_COMMIT", commit);
    }
    let linker = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
    command.env(linker, sysroot.linker());
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
    let folder = folder(source, architecture, compression);
    let origin = Origin { compiler: compiler()?, crates: crates(source, architecture)? };
    let text = serde_json::to_vec_pretty(&origin).map_err(|e| Error::format("origin", e.to_string()))?;
    crate::place::replace(&folder.join(Origin::FILE), &text)?;
    Ok(folder)
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from)
}

/// The crates that the programs are linked from, as `Cargo.lock` has them.
fn crates(source: &Path, architecture: Architecture) -> Result<Vec<Crate>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(source).args(["tree", "--locked", "--edges", "normal", "--prefix", "none"]);
    command.args(["--target", architecture.rust_target(), "--format", "{p}"]);
    for (_, package) in PROGRAMS {
        command.args(["--package", package]);
    }
    let printed = crate::process::output(&mut command)?;
    let printed = String::from_utf8_lossy(&printed);
    let linked: BTreeSet<(&str, &str)> = printed.lines().filter_map(name_and_version).collect();
    let path = source.join("Cargo.lock");
    let lock = std::fs::read_to_string(&path).map_err(Error::read(&path))?;
    let mut crates = locked(&lock);
    crates.retain(|c| linked.contains(&(c.name.as_str(), c.version.as_str())));
    Ok(crates)
}

/// A line of `cargo tree`: `name v1.2.3 (more)`.
fn name_and_version(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    Some((words.next()?, words.next()?.strip_prefix('v')?))
}

/// Every crate of a registry in the text of a `Cargo.lock`.
fn locked(lock: &str) -> Vec<Crate> {
    let Ok(document) = lock.parse::<toml::Table>() else { return Vec::new() };
    let packages = document.get("package").and_then(|p| p.as_array()).cloned().unwrap_or_default();
    let text = |p: &toml::Value, key: &str| Some(p.get(key)?.as_str()?.to_owned());
    let one = |p| {
        Some(Crate { name: text(p, "name")?, version: text(p, "version")?, sha256: text(p, "checksum")? })
    };
    packages.iter().filter_map(one).collect()
}

/// Name and version of the compiler.
fn compiler() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let printed = crate::process::output(Command::new(rustc).arg("--version"))?;
    Ok(String::from_utf8_lossy(&printed).trim().to_owned())
}

/// The programs' files in a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let programs = PROGRAMS.iter().map(|(program, _)| folder.join(program));
    programs.chain([folder.join(Origin::FILE)]).filter(|path| path.exists()).collect()
}

/// Files that decide what the programs are: everything that cargo reads of the sources.
pub fn sources(source: &Path) -> Vec<PathBuf> {
    let names = ["Cargo.toml", "Cargo.lock", "init", "stack", "provisioning"];
    names.iter().map(|name| source.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_of_a_registry_are_listed_and_ours_are_not() {
        let lock = "version = 4\n[[package]]\nname = \"own\"\nversion = \"1.0.0\"\n\
                    [[package]]\nname = \"foreign\"\nversion = \"2.0.0+x\"\nchecksum = \"ab\"\n";
        let foreign = Crate { name: "foreign".into(), version: "2.0.0+x".into(), sha256: "ab".into() };
        assert_eq!(locked(lock), [foreign]);
        assert_eq!(name_and_version("tokio v1.2.3 (*)"), Some(("tokio", "1.2.3")));
    }

    #[test]
    fn an_image_for_publishing_has_programs_of_its_own() {
        let folders = [Compression::Development, Compression::Release]
            .map(|compression| folder(Path::new("/s"), Architecture::Amd64, compression));
        assert!(folders[0].ends_with(profile(Compression::Development)));
        assert!(folders[1].ends_with(profile(Compression::Release)));
        assert_ne!(folders[0], folders[1]);
    }
}
