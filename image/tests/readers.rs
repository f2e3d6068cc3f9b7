//! Whatever bytes a reader of ours gets, it answers with a value or an error, never with a panic.

use std::io::Cursor;
use std::sync::LazyLock;

use image::deb::{self, Deb};
use image::tree::{Node, Tree};
use image::{elf, fat, gpt, uki};
use proptest::prelude::*;

/// Changes to a good file: at which place (in thousandths of its length) which byte.
fn changes() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((0..1000usize, any::<u8>()), 1..20)
}

fn changed(good: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for (place, value) in changes {
        let at = place * bytes.len() / 1000;
        bytes[at] = *value;
    }
    bytes
}

fn package() -> Vec<u8> {
    let mut files = Tree::default();
    files.insert("usr/bin/tool", Node::file(0o755, vec![7; 3000]));
    files.insert("usr/bin/other", Node::link("tool"));
    let mut data = Vec::new();
    files.write_tar(&mut data, 0).unwrap();
    let mut deb = b"!<arch>\n".to_vec();
    for (name, content) in [("debian-binary", &b"2.0\n"[..]), ("control.tar", &data), ("data.tar", &data)] {
        deb.extend(
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, content.len()).bytes(),
        );
        deb.extend_from_slice(content);
    }
    deb
}

/// A boot partition of which only the beginning is kept: tables, root folder, the first file.
static BOOT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let files: [(&str, &[u8]); 2] = [("EFI/BOOT/BOOTX64.EFI", &[7; 5000]), ("bothy.toml", b"version = 1\n")];
    let mut bytes = fat::create(160 << 20, 5, 0, &files).unwrap();
    bytes.truncate(2 << 20);
    bytes
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn packages(changes in changes(), noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Deb::parse(&noise);
        if let Ok(deb) = Deb::parse(&changed(&package(), &changes)) {
            let _ = deb::tree(&deb.data);
            let _ = deb::scripts(&deb.control);
        }
    }

    #[test]
    fn programs(changes in changes()) {
        static PROGRAM: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let mut program = std::fs::read("/bin/true").unwrap();
            program.truncate(20_000);
            program
        });
        let _ = elf::needs(&changed(&PROGRAM, &changes));
        // What matters most lies at the beginning.
        let head = changed(&PROGRAM[..1000], &changes);
        let _ = elf::needs(&[&head, &PROGRAM[1000..]].concat());
        let _ = uki::sections(&[b"MZ", &head[2..]].concat());
    }

    #[test]
    fn partition_tables(changes in changes()) {
        let part = gpt::Partition { kind: gpt::ESP, guid: [1; 16], name: "boot", first: 2048, last: 4095 };
        let table = gpt::table([9; 16], 8192, &[part]).unwrap();
        let _ = gpt::find(&mut Cursor::new(changed(&table.start[..2048], &changes)), "boot");
        let mut whole = changed(&table.start[..2048], &changes);
        whole.extend_from_slice(&table.start[2048..]);
        let _ = gpt::find(&mut Cursor::new(whole), "boot");
    }

    #[test]
    fn boot_partitions(changes in changes(), sector in 0..3usize) {
        // The boot sector, a table, the root folder.
        let table = u32::from_le_bytes(BOOT[36..40].try_into().unwrap()) as usize;
        let at = [0, 32 * 512, (32 + 2 * table) * 512][sector];
        let mut bytes = BOOT.clone();
        let piece = changed(&bytes[at..at + 1024], &changes);
        bytes[at..at + 1024].copy_from_slice(&piece);
        let _ = fat::read_file(&bytes, "bothy.toml");
        let _ = fat::read_file(&bytes, "EFI/BOOT/BOOTX64.EFI");
    }
}
