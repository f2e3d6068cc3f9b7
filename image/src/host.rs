//! What the machine that builds must have, and how it gets it.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// Something that has to be there: a program, or a file of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// A program's name to be found in `PATH`, or an absolute path.
    pub file: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
    /// What for.
    pub purpose: &'static str,
}

/// To compile `stack`: containerd's interface descriptions.
pub const PROTOC: Tool =
    Tool { file: "protoc", package: "protobuf-compiler", purpose: "compile containerd's interfaces" };
/// To link programs.
pub const CC: Tool = Tool { file: "cc", package: "gcc", purpose: "link programs" };
/// Headers and start files of the C library, its static form included.
pub const LIBC: Tool =
    Tool { file: "/usr/include/stdio.h", package: "libc6-dev", purpose: "link programs with the C library" };
/// Keys that the archive's signatures are checked with.
pub const KEYRING: Tool = Tool {
    file: "/usr/share/keyrings/debian-archive-keyring.gpg",
    package: "debian-archive-keyring",
    purpose: "verify Debian's packages",
};
/// The emulator.
pub const QEMU: Tool = Tool {
    file: "qemu-system-x86_64",
    package: "qemu-system-x86",
    purpose: "boot the image in a virtual machine",
};
/// UEFI firmware for virtual machines.
pub const OVMF: Tool =
    Tool { file: "/usr/share/OVMF/OVMF_CODE_4M.fd", package: "ovmf", purpose: "boot through UEFI firmware" };

/// A registry that functions' images are pulled from in tests.
pub const REGISTRY: Tool =
    Tool { file: "docker-registry", package: "docker-registry", purpose: "test pulls from a registry" };
/// What makes its certificates and tokens.
pub const OPENSSL: Tool =
    Tool { file: "openssl", package: "openssl", purpose: "make certificates for tests" };

/// What compiles libFuzzer.
pub const CXX: Tool = Tool { file: "g++", package: "g++", purpose: "compile libFuzzer" };

/// To build an image.
pub const BUILD: &[Tool] = &[PROTOC, CC, LIBC, KEYRING];
/// To boot one.
pub const BOOT: &[Tool] = &[QEMU, OVMF];
/// To run what only tests run.
pub const TEST: &[Tool] = &[REGISTRY, OPENSSL];
/// To run what only the second tier of tests runs.
pub const LONG: &[Tool] = &[CXX];

fn present(tool: &Tool) -> bool {
    if tool.file.starts_with('/') {
        return Path::new(tool.file).exists();
    }
    // Some distributions leave the administrator's folders out of a user's PATH.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.into_iter().any(|folder| folder.join(tool.file).is_file())
}

/// Makes sure that all of `tools` are there, and installs what is missing if `install` allows it.
///
/// # Errors
/// Something is missing and may not or cannot be installed; the message lists it with what to do.
pub fn ensure(tools: &[Tool], install: bool) -> Result<()> {
    let missing: Vec<&Tool> = tools.iter().filter(|tool| !present(tool)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let list = missing.iter().map(|t| format!("{} (package {}, to {})", t.file, t.package, t.purpose));
    let list = list.collect::<Vec<_>>().join(", ");
    let by_hand = format!("install it: apt-get install {}", packages.join(" "));
    if !install {
        return Err(Error::HostTools { missing: list, advice: by_hand });
    }
    let root = is_root();
    let sudo = Tool { file: "sudo", package: "sudo", purpose: "" };
    if !root && !present(&sudo) {
        return Err(Error::HostTools { missing: list, advice: format!("as root, {by_hand}") });
    }
    eprintln!("bothy: this machine lacks {list}");
    eprintln!("bothy: installing {}{}", packages.join(" "), if root { "" } else { " with sudo" });
    let apt = |arguments: &[&str]| {
        let mut command = Command::new(if root { "apt-get" } else { "sudo" });
        if !root {
            command.arg("apt-get");
        }
        // A machine that has just booted may be busy with its own updates.
        command.args(["-q", "-y", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
        // What apt says is for the user to see, on standard error: standard output is the command's own.
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(std::io::stderr());
        let status = command.status().map_err(|source| Error::Start { program: "apt-get".into(), source })?;
        if status.success() {
            return Ok(());
        }
        let stderr = "what apt said stands above".to_owned();
        Err(Error::Program { program: format!("apt-get {}", arguments[0]), status, stderr })
    };
    let failed = |e: Error| Error::HostTools { missing: list.clone(), advice: format!("{e}; {by_hand}") };
    // A fresh machine knows no packages until it has asked once.
    apt(&["update"]).map_err(failed)?;
    apt(&[&["install", "--no-install-recommends"], &packages[..]].concat()).map_err(failed)?;
    let still: Vec<&str> = tools.iter().filter(|tool| !present(tool)).map(|tool| tool.file).collect();
    if still.is_empty() {
        return Ok(());
    }
    Err(Error::HostTools {
        missing: still.join(", "),
        advice: "their packages were installed and did not bring them".into(),
    })
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        let tool = Tool { file: "no-such-program", package: "no-such-package", purpose: "test" };
        let text = ensure(&[tool], false).unwrap_err().to_string();
        assert!(
            text.contains("no-such-program") && text.contains("apt-get install no-such-package"),
            "{text}"
        );
        let shell = Tool { file: "sh", package: "dash", purpose: "test" };
        assert!(ensure(&[shell], false).is_ok());
    }
}
