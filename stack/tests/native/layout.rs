//! A function image for the tests: the watchdog that cargo just built, a few of the host's programs, and the
//! libraries that both need, as an OCI layout.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Programs of the host that go into the image.
const PROGRAMS: [&str; 6] =
    ["/bin/cat", "/bin/sh", "/bin/sleep", "/usr/bin/env", "/usr/bin/id", "/usr/bin/unshare"];

/// Writes a layout whose image runs the watchdog as `app` (uid 1000) and prints `answer` by default.
pub fn write(folder: &Path, reference: &str, answer: &str, architecture: &str) {
    write_as("app", folder, reference, answer, architecture);
}

/// The same for another user of the image.
pub fn write_as(user: &str, folder: &Path, reference: &str, answer: &str, architecture: &str) {
    assemble(folder, reference, architecture, &process(user), &[&programs(answer)]);
}

/// How such an image runs (image-spec, config.md).
pub fn process(user: &str) -> Value {
    json!({"Entrypoint": ["/watchdog"], "User": user, "Env": ["fprocess=/bin/cat /answer", "FROM_IMAGE=1"]})
}

/// What is in it.
pub fn programs(answer: &str) -> Vec<u8> {
    let mut layer = Layer::new();
    layer.add("answer", 0o644, answer.as_bytes());
    layer.add("etc/passwd", 0o644, b"root:x:0:0:::\napp:x:1000:1000:::\n");
    layer.add_program(Path::new(env!("CARGO_BIN_EXE_watchdog")), "watchdog");
    for program in PROGRAMS {
        layer.add_program(Path::new(program), program.trim_start_matches('/'));
    }
    layer.finish()
}

/// Writes a layout of these layers, the lowest first, whose image has that `config` (image-spec, config.md).
pub fn assemble(folder: &Path, reference: &str, architecture: &str, process: &Value, layers: &[&[u8]]) {
    let config = json!({
        "architecture": architecture, "os": "linux", "config": process,
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>()},
        "history": [{"created_by": "test"}],
    })
    .to_string()
    .into_bytes();
    let descriptor = |kind: &str, bytes: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(bytes), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &config),
        "layers": layers.iter().map(|layer| descriptor("layer.v1.tar", layer)).collect::<Vec<_>>(),
    })
    .to_string()
    .into_bytes();
    let mut named = descriptor("manifest.v1+json", &manifest);
    named["annotations"] = json!({"org.opencontainers.image.ref.name": reference});
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    for bytes in layers.iter().copied().chain([&config[..], &manifest[..]]) {
        fs::write(blobs.join(digest(bytes).trim_start_matches("sha256:")), bytes).unwrap();
    }
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(folder.join("index.json"), json!({"schemaVersion": 2, "manifests": [named]}).to_string())
        .unwrap();
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A layer while it is written: a tar archive.
pub struct Layer {
    tar: Vec<u8>,
    /// What is in it already.
    known: BTreeSet<String>,
}

impl Layer {
    /// With the folders that every container needs.
    pub fn new() -> Self {
        let mut layer = Self { tar: Vec::new(), known: BTreeSet::new() };
        for empty in ["proc", "sys", "dev"] {
            layer.add(&format!("{empty}/.keep"), 0o644, b"");
        }
        entry(&mut layer.tar, "tmp/", 0o1777, b'5', b"");
        layer
    }

    /// Adds a file, and the folders above it. One that is there already stays.
    pub fn add(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        for folder in Path::new(path).ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
            let name = folder.to_str().unwrap();
            if !name.is_empty() && self.known.insert(name.to_owned()) {
                entry(&mut self.tar, &format!("{name}/"), 0o755, b'5', b"");
            }
        }
        if self.known.insert(path.to_owned()) {
            entry(&mut self.tar, path, mode, b'0', bytes);
        }
    }

    /// Adds a program of the host and the libraries that it needs.
    pub fn add_program(&mut self, program: &Path, path: &str) {
        self.add(path, 0o755, &fs::read(program).unwrap());
        for library in libraries(program) {
            let path = library.to_str().unwrap().trim_start_matches('/').to_owned();
            self.add(&path, 0o755, &fs::read(&library).unwrap());
        }
    }

    /// The archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.tar.extend([0; 1024]);
        self.tar
    }
}

/// The libraries of a program, as the host's loader finds them.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// One ustar entry (POSIX.1-1988): a header of 512 bytes, then the content in blocks of 512.
fn entry(tar: &mut Vec<u8>, name: &str, mode: u32, kind: u8, bytes: &[u8]) {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    assert!(name.len() < 100, "{name}");
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", bytes.len()));
    put(136, "00000000000");
    put(148, "        ");
    put(257, "ustar\x0000");
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    tar.extend(header);
    tar.extend(bytes);
    tar.extend(vec![0; bytes.len().next_multiple_of(512) - bytes.len()]);
}
