//! Second opinions on a disk from Debian's own tools, the ones that the builder unpacked.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use image::Artifacts;
use image::qemu::Disk;

fn run(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("start {:?}", command.get_program()))
}

/// The file systems of a machine that was powered off must be in order, and must have been unmounted.
///
/// # Errors
/// e2fsck or fsck.fat has something to say.
pub fn assert_clean(artifacts: &Artifacts, disk: &Disk, folder: &Path) -> Result<()> {
    let partition = disk.extract("data", folder)?;
    let mut header = artifacts.tools()?.command("usr/sbin/dumpe2fs");
    let header = run(header.arg("-h").arg(&partition.path))?;
    let header = String::from_utf8_lossy(&header.stdout).into_owned();
    let state =
        header.lines().find(|line| line.starts_with("Filesystem state:")).unwrap_or("no state").to_owned();
    ensure!(state.ends_with(" clean"), "the data partition was not unmounted: {state}");
    ensure!(!header.contains("needs_recovery"), "the data partition's journal was not written back");
    let mut check = artifacts.tools()?.command("usr/sbin/e2fsck");
    let said = run(check.args(["-f", "-n"]).arg(&partition.path))?;
    let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    ensure!(said.status.success(), "e2fsck ({}): {text}", said.status);
    let boot = disk.extract("boot", folder)?;
    let mut check = artifacts.tools()?.command("usr/sbin/fsck.fat");
    let said = run(check.arg("-n").arg(&boot.path))?;
    ensure!(said.status.success(), "fsck.fat ({}): {}", said.status, String::from_utf8_lossy(&said.stdout));
    Ok(())
}

/// What a command of debugfs(8) prints about the data partition.
///
/// # Errors
/// It fails.
pub fn debugfs(artifacts: &Artifacts, partition: &Path, request: &str) -> Result<String> {
    let mut command = artifacts.tools()?.command("usr/sbin/debugfs");
    let said = run(command.args(["-R", request]).arg(partition))?;
    ensure!(said.status.success(), "debugfs {request}: {}", String::from_utf8_lossy(&said.stderr));
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// What journalctl, the image's own, says about the journal on the data partition.
///
/// # Errors
/// There is no journal, or journalctl cannot read it.
pub fn journal(artifacts: &Artifacts, disk: &Disk, folder: &Path, arguments: &[&str]) -> Result<String> {
    let root = std::env::var_os("BOTHY_ROOTFS").context("BOTHY_ROOTFS is not set: use `cargo bothy test`")?;
    let root = Path::new(&root);
    let partition = disk.extract("data", folder)?;
    let copy = folder.join("journal");
    std::fs::create_dir_all(&copy).with_context(|| format!("create {}", copy.display()))?;
    debugfs(artifacts, &partition.path, &format!("rdump /log/journal {}", copy.display()))?;
    let libraries = root.join("usr/lib").join(&artifacts.library_folder);
    let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    command.env_clear().env("LC_ALL", "C.UTF-8").env("SYSTEMD_COLORS", "0").arg("--library-path");
    let private = libraries.join("systemd");
    command
        .arg(format!("{}:{}", libraries.display(), private.display()))
        .arg(root.join("usr/bin/journalctl"));
    let mut folders =
        std::fs::read_dir(copy.join("journal")).context("the data partition has no log/journal")?;
    let machine = folders.next().context("the journal is empty")??;
    let said = run(command.arg("--no-pager").arg("--directory").arg(machine.path()).args(arguments))?;
    let errors = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success(), "journalctl ({}): {errors}", said.status);
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}
