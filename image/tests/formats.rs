//! Outside programs read what we wrote, each the format that it is the authority on.

mod artifacts;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use artifacts::finished;
use image::manifest::Manifest;
use image::{Artifacts, digest, fat, gpt, process, uki};

fn partition(artifacts: &Artifacts, name: &str) -> Vec<u8> {
    let mut file = File::open(&artifacts.image).unwrap();
    let (start, length) = gpt::find(&mut file, name).unwrap();
    let mut bytes = vec![0; length as usize];
    file.seek(SeekFrom::Start(start)).unwrap();
    file.read_exact(&mut bytes).unwrap();
    bytes
}

fn saved(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn fsck_finds_the_boot_partition_clean() {
    let artifacts = finished();
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), "boot", &partition(&artifacts, "boot"));
    let mut fsck = artifacts.tools().unwrap().command("usr/sbin/fsck.fat");
    let said = process::output(fsck.args(["-v", "-n"]).arg(&path)).unwrap();
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("32 bit entries"), "{said}");
}

#[test]
fn veritysetup_accepts_the_root_and_refuses_a_flipped_bit() {
    let artifacts = finished();
    let folder = tempfile::tempdir().unwrap();
    let mut root = partition(&artifacts, "root-a");
    let used = u64::from_le_bytes(root[40..48].try_into().unwrap());
    let offset = used.next_multiple_of(4096);
    let hash = Manifest::load(&artifacts.manifest).unwrap().root_hash;
    assert!(artifacts.command_line.ends_with(&format!(" roothash={hash}")));
    let verify = |root: &[u8]| {
        let path = saved(folder.path(), "root", root);
        let mut command = artifacts.tools().unwrap().command("usr/sbin/veritysetup");
        process::output(
            command.arg("verify").args([&path, &path]).arg(&hash).arg(format!("--hash-offset={offset}")),
        )
    };
    verify(&root).unwrap();
    root[used as usize / 2] ^= 1;
    assert!(verify(&root).is_err());
}

#[test]
fn another_reader_sees_the_same_partitions() {
    let artifacts = finished();
    let mut file = File::open(&artifacts.image).unwrap();
    let table = gptman::GPT::find_from(&mut file).unwrap();
    let names: Vec<_> =
        table.iter().filter(|(_, p)| p.is_used()).map(|(_, p)| p.partition_name.to_string()).collect();
    assert_eq!(names, ["boot", "root-a"]);
    // The file ends where the backup table ends, right behind the first root.
    let length = file.metadata().unwrap().len();
    assert_eq!(table.header.backup_lba, length / 512 - 1);
    assert_eq!(table.header.first_usable_lba, gpt::FIRST_USABLE);
}

#[test]
fn what_boots_directly_comes_from_the_images_own_uki() {
    let artifacts = finished();
    let uki = fat::read_file(&partition(&artifacts, "boot"), "EFI/BOOT/BOOTX64.EFI").unwrap();
    let sections = uki::sections(&uki).unwrap();
    let content = |name: &str| sections.iter().find(|s| s.name == name).unwrap().content;
    // The kernel asks for more memory than its file has, so its section is padded.
    let padding = content(".linux").strip_prefix(&std::fs::read(&artifacts.kernel).unwrap()[..]).unwrap();
    assert!(padding.len() < 512 && padding.iter().all(|b| *b == 0));
    assert!(content(".initrd") == std::fs::read(&artifacts.initrd).unwrap());
    assert_eq!(content(".cmdline"), artifacts.command_line.as_bytes());
}

#[test]
fn the_default_configuration_is_valid() {
    let text = fat::read_file(&partition(&finished(), "boot"), "bothy.toml").unwrap();
    provisioning::parse(std::str::from_utf8(&text).unwrap(), "bothy.toml").unwrap();
}

#[test]
fn sha256sum_agrees() {
    let artifacts = finished();
    let folder = artifacts.image.parent().unwrap();
    let mut command = std::process::Command::new("sha256sum");
    process::output(command.arg("--check").arg(format!("{}.sha256", artifacts.name)).current_dir(folder))
        .unwrap();
}

#[test]
fn a_validator_accepts_the_bill_of_materials() {
    use cyclonedx_bom::prelude::*;
    let artifacts = finished();
    let bytes = std::fs::read(&artifacts.sbom).unwrap();
    let bom = Bom::parse_from_json_v1_5(&bytes[..]).unwrap();
    let result = bom.validate();
    assert!(result.passed(), "{result:?}");
    let components = bom.components.unwrap().0;
    for name in ["containerd", "nats-server", "crun", "init", "tokio"] {
        assert!(components.iter().any(|c| c.name.to_string() == name), "{name} is not listed");
    }
    // Of the workspace's crates only those that the device's programs are linked from.
    for name in ["proptest", "ureq", "cyclonedx-bom"] {
        assert!(!components.iter().any(|c| c.name.to_string() == name), "{name} is on no device");
    }
}

#[test]
fn the_manifest_tells_every_program() {
    let artifacts = finished();
    let manifest = Manifest::load(&artifacts.manifest).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    artifacts.unpack_root(&root).unwrap();
    for program in &manifest.programs {
        let path = match program.name.as_str() {
            "init" => "usr/sbin/init",
            "watchdog" => continue, // in function images
            other => &format!("usr/bin/{other}"),
        };
        assert_eq!(digest::hex(&std::fs::read(root.join(path)).unwrap()), program.sha256, "{path}");
    }
}
