//! The floor of the boot bench: the same disk and kernel, with the least that brings containerd and NATS up.
//!
//! Only the initial file system differs. Its `/init` is the program `floor` of crate `init`; its modules are those of
//! the image's own, in the order in which they must be loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Artifacts;
use crate::build::Options;
use crate::qemu::{Boot, Disk, Error, Machine, Result};
use crate::recipe::{Architecture, Recipe};
use crate::tree::{Node, Tree};

/// The floor's files.
pub(super) struct Floor {
    initrd: PathBuf,
}

impl Floor {
    /// Builds the program and packs it with the image's modules.
    pub(super) fn make(options: &Options, artifacts: &Artifacts, folder: &Path) -> Result<Self> {
        let program = program(options, Recipe::load(&options.recipe)?.architecture, folder)?;
        let packed = std::fs::read(&artifacts.initrd).map_err(Error::file("read", &artifacts.initrd))?;
        let cpio = zstd::decode_all(&packed[..]).map_err(Error::file("unpack", &artifacts.initrd))?;
        let files = newc(&cpio).ok_or_else(|| Error::Disk {
            path: artifacts.initrd.clone(),
            reason: "it is no newc archive".to_owned(),
        })?;
        let mut tree = Tree::default();
        for name in ["dev", "proc", "sys", "run", "sysroot"] {
            tree.insert(name, Node::folder(0o755));
        }
        tree.insert("init", Node::file(0o755, program));
        tree.insert("modules", Node::folder(0o755));
        for (number, content) in in_order(&files).into_iter().enumerate() {
            tree.insert(&format!("modules/{number:03}.ko"), Node::file(0o644, content.to_vec()));
        }
        let mut cpio = Vec::new();
        let initrd = folder.join("floor.initrd");
        tree.write_cpio(&mut cpio, 0).map_err(Error::file("pack", &initrd))?;
        let packed = zstd::encode_all(&cpio[..], 6).map_err(Error::file("pack", &initrd))?;
        std::fs::write(&initrd, packed).map_err(Error::file("write", &initrd))?;
        Ok(Self { initrd })
    }

    /// A machine like `machine`, but with the floor's initial file system.
    pub(super) fn machine(&self, machine: &Machine, disk: &Disk) -> Machine {
        let mut floor = machine.clone();
        if let Boot::Direct { initrd, .. } = &mut floor.boot {
            initrd.clone_from(&self.initrd);
        }
        floor.disk = Some(disk.clone());
        floor.network = false;
        floor.console = Some(machine.folder.join("floor-console.log"));
        floor
    }
}

/// Compiles the floor's program as the device's own are compiled, but in a folder of its own, below `folder`: whatever
/// its flags are, they make nothing else stale.
fn program(options: &Options, architecture: Architecture, folder: &Path) -> Result<Vec<u8>> {
    let target_folder = folder.join("floor");
    let target = architecture.rust_target();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&options.source).args(["build", "--quiet", "--locked", "--profile", "device"]);
    command
        .args(["--target", target, "--package", "init", "--bin", "floor", "--target-dir"])
        .arg(&target_folder);
    command.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static").stdin(Stdio::null());
    let status = command.status().map_err(|source| Error::Start { program: "cargo".to_owned(), source })?;
    if !status.success() {
        return Err(Error::Ended {
            status,
            stderr: "the floor's program does not build, see above".to_owned(),
        });
    }
    let path = target_folder.join(target).join("device/floor");
    std::fs::read(&path).map_err(Error::file("read", &path))
}

/// The regular files of a newc archive (cpio(5)); nothing if it is damaged.
fn newc(archive: &[u8]) -> Option<BTreeMap<String, &[u8]>> {
    let mut files = BTreeMap::new();
    let mut at = 0;
    loop {
        let header = archive.get(at..at + 110)?;
        if !header.starts_with(b"070701") {
            return None;
        }
        let field = |number: usize| {
            let text = std::str::from_utf8(header.get(6 + 8 * number..14 + 8 * number)?).ok()?;
            usize::from_str_radix(text, 16).ok()
        };
        let (mode, size, name_size) = (field(1)?, field(6)?, field(11)?);
        let name = archive.get(at + 110..at + 110 + name_size.checked_sub(1)?)?;
        let name = String::from_utf8_lossy(name).trim_start_matches("./").to_owned();
        let content = (at + 110 + name_size).next_multiple_of(4);
        if name == "TRAILER!!!" {
            return Some(files);
        }
        if mode & 0o170_000 == 0o100_000 {
            files.insert(name, archive.get(content..content + size)?);
        }
        at = (content + size).next_multiple_of(4);
    }
}

/// The archive's kernel modules, each behind those that it needs: `modules.dep`, and `softdep pre:` besides.
fn in_order<'a>(files: &BTreeMap<String, &'a [u8]>) -> Vec<&'a [u8]> {
    let text = |ending: &str| {
        let found = files.iter().find(|(name, _)| name.ends_with(ending));
        found.map(|(_, content)| String::from_utf8_lossy(content).into_owned()).unwrap_or_default()
    };
    let short =
        |path: &str| path.rsplit('/').next().unwrap_or(path).trim_end_matches(".ko").replace('-', "_");
    let mut needs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text("/modules.dep").lines() {
        if let Some((module, others)) = line.split_once(':') {
            needs.entry(short(module)).or_default().extend(others.split_whitespace().map(short));
        }
    }
    for line in text("/modules.softdep").lines() {
        let mut words = line.split_whitespace();
        if let (Some("softdep"), Some(module)) = (words.next(), words.next()) {
            let before = words.skip_while(|word| *word != "pre:").skip(1).take_while(|word| *word != "post:");
            needs.entry(short(module)).or_default().extend(before.map(short));
        }
    }
    let content: BTreeMap<String, &[u8]> = files
        .iter()
        .filter(|(name, _)| name.ends_with(".ko"))
        .map(|(name, bytes)| (short(name), *bytes))
        .collect();
    let mut order: Vec<String> = Vec::new();
    for module in content.keys() {
        visit(module, &needs, &mut Vec::new(), &mut order);
    }
    order.iter().filter_map(|module| content.get(module).copied()).collect()
}

fn visit(
    module: &str,
    needs: &BTreeMap<String, Vec<String>>,
    path: &mut Vec<String>,
    order: &mut Vec<String>,
) {
    if order.iter().chain(path.iter()).any(|known| known == module) {
        return;
    }
    path.push(module.to_owned());
    for other in needs.get(module).into_iter().flatten() {
        visit(other, needs, path, order);
    }
    path.pop();
    order.push(module.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Kind;

    #[test]
    fn archives_come_back_and_modules_are_in_order() {
        let mut tree = Tree::default();
        let folder = "usr/lib/modules/6";
        let file = |text: &str| Node::file(0o644, text.as_bytes().to_vec());
        for path in ["usr", "usr/lib", "usr/lib/modules", folder] {
            tree.insert(path, Node::folder(0o755));
        }
        tree.insert(&format!("{folder}/a.ko"), file("A"));
        tree.insert(&format!("{folder}/dm-b.ko"), file("BB"));
        tree.insert(&format!("{folder}/c.ko"), file("CCC"));
        tree.insert(&format!("{folder}/modules.dep"), file("a.ko: dm-b.ko\ndm-b.ko:\nc.ko:\n"));
        tree.insert(&format!("{folder}/modules.softdep"), file("softdep dm_b pre: c post: a\n"));
        let mut cpio = Vec::new();
        tree.write_cpio(&mut cpio, 0).unwrap();
        let files = newc(&cpio).unwrap();
        assert_eq!(files.len(), 5);
        assert!(tree.iter().all(|(path, node)| match &node.kind {
            Kind::File(bytes) => files[path] == &bytes[..],
            _ => !files.contains_key(path),
        }));
        assert_eq!(in_order(&files), [&b"CCC"[..], b"BB", b"A"]);
        assert!(newc(&cpio[..cpio.len() / 2]).is_none());
        assert!(newc(b"junk").is_none());
    }
}
