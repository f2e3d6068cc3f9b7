//! An image holds no secret and no identity: every machine that is flashed from it gets its own.

mod artifacts;

use std::path::{Path, PathBuf};

fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), out);
        } else if kind.is_file() {
            out.push(entry.path());
        }
    }
}

/// Whether bytes hold a private key: its header with at least a line of base64 behind it. (Programs that deal with
/// keys hold the bare headers.)
fn holds_private_key(bytes: &[u8]) -> bool {
    let marks: [&[u8]; 2] = [b"PRIVATE KEY-----\n", b"PRIVATE KEY-----\r\n"];
    let base64 = |b: &u8| b.is_ascii_alphanumeric() || b"+/=".contains(b);
    marks.iter().any(|mark| {
        bytes
            .windows(mark.len())
            .enumerate()
            .filter(|(_, w)| w == mark)
            .any(|(i, _)| bytes[i + mark.len()..].iter().take(60).filter(|b| base64(b)).count() == 60)
    })
}

/// Whether a text line is one of shadow(5) with a password that somebody could guess.
fn holds_password(line: &str) -> bool {
    line.split(':').nth(1).is_some_and(|hash| hash.starts_with('$') && hash.matches('$').count() >= 3)
}

fn check(path: &Path, bytes: &[u8]) {
    let name = path.file_name().unwrap().to_string_lossy();
    for identity in ["machine-id", "random-seed", "hostid", "ssh_host_"] {
        assert!(!name.contains(identity), "{}", path.display());
    }
    assert!(!holds_private_key(bytes), "{} holds a private key", path.display());
    if path.starts_with("etc") {
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.lines().any(holds_password), "{} holds a password", path.display());
    }
}

#[test]
fn nothing_in_the_root_is_secret_or_personal() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    artifacts::finished().unpack_root(&root).unwrap();
    let mut all = Vec::new();
    files(&root, &mut all);
    assert!(all.len() > 100, "only {} files: is this the root file system?", all.len());
    for path in &all {
        check(path.strip_prefix(&root).unwrap(), &std::fs::read(path).unwrap());
    }
}

/// Names in an archive of the format `newc`: a header of 110 bytes, the name, the content, both padded to four bytes.
fn names(mut cpio: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    while cpio.starts_with(b"070701") {
        let field =
            |at: usize| usize::from_str_radix(std::str::from_utf8(&cpio[at..at + 8]).unwrap(), 16).unwrap();
        let (size, name) = (field(54), field(94));
        names.push(String::from_utf8(cpio[110..110 + name - 1].to_vec()).unwrap());
        let content = (110 + name).next_multiple_of(4);
        cpio = &cpio[(content + size).next_multiple_of(4).min(cpio.len())..];
    }
    names
}

#[test]
fn nothing_on_the_boot_partition_is_secret_or_personal() {
    let artifacts = artifacts::finished();
    let mut file = std::fs::File::open(&artifacts.image).unwrap();
    let (start, length) = image::gpt::find(&mut file, "boot").unwrap();
    let mut boot = vec![0; length as usize];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut boot, start).unwrap();
    assert!(!holds_private_key(&boot));
    // What is compressed in there: the initrd.
    let initrd = zstd::decode_all(&std::fs::read(&artifacts.initrd).unwrap()[..]).unwrap();
    assert!(!holds_private_key(&initrd));
    let names = names(&initrd);
    assert!(names.iter().any(|name| name == "init"), "{names:?}");
    for name in ["machine-id", "random-seed", "shadow"] {
        assert!(!names.iter().any(|known| known.ends_with(name)), "{name}");
    }
    // Nobody has a password yet, and nobody has configured anything.
    let text = image::fat::read_file(&boot, "bothy.toml").unwrap();
    let config = provisioning::parse(std::str::from_utf8(&text).unwrap(), "bothy.toml").unwrap();
    assert!(config.gateway.password.is_none() && config.functions.is_empty() && config.hostname.is_none());
}

#[test]
fn what_is_looked_for_would_be_found() {
    let key =
        format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n", "b3BlbnNzaC1rZXktdjEAAAAABG5vbm".repeat(3));
    assert!(holds_private_key(key.as_bytes()));
    assert!(!holds_private_key(b"-----BEGIN RSA PRIVATE KEY-----\n\0malformed"));
    assert!(holds_password("root:$y$j9T$salt$hash:19000:0:99999:7:::"));
    assert!(!holds_password("root:*:19000:0:99999:7:::"));
}
