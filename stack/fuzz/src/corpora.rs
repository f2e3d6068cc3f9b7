//! The corpora without libFuzzer, in every run of the tests: each input as it is, and neighbours of it, always the same
//! ones. The second tier (`long`) lets libFuzzer itself look for a while.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::mutation::Mutation;
use crate::targets;

/// Neighbours of each corpus.
const NEIGHBOURS: usize = 3_000;

/// How long libFuzzer looks, in seconds.
const LONG_SECONDS: u32 = 60;

/// Longest input that libFuzzer makes, in bytes.
const LONGEST: u32 = 4096;

macro_rules! targets {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        $(#[test] fn $name() { replay(stringify!($name), targets::$name::check) })*

        mod long {
            $(#[test] fn $name() { super::explore(stringify!($name)) })*
        }
    };
}

targets! {
    alerts basic_auth bothy_toml callbacks calls challenges deployments docker_config durations environments headers
    journal ledger letters locations log_requests manifests namespaces paths quantities queries ranges references
    retries secrets timestamps watchdog_config
}

fn home() -> PathBuf {
    // These tests are `stack`'s.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The inputs of a target, by name.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = home().join("corpus").join(target);
    let mut inputs: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}: the corpus of {target}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    inputs
}

/// Shows what was looked at when something is found.
struct Looking<'a>(&'a [u8]);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("found with {:?}", String::from_utf8_lossy(self.0));
        }
    }
}

fn replay(target: &str, check: fn(&[u8])) {
    let inputs = corpus(target);
    for (path, input) in &inputs {
        let _looking = Looking(path.as_os_str().as_encoded_bytes());
        check(input);
    }
    let inputs: Vec<Vec<u8>> = inputs.into_iter().map(|(_, input)| input).collect();
    let mut mutation = Mutation::new();
    for _ in 0..NEIGHBOURS {
        let input = mutation.neighbour(&inputs);
        let _looking = Looking(&input);
        check(&input);
    }
}

/// Builds a target for libFuzzer and runs it. What breaks something stays in `artifacts/`, and fails the test.
fn explore(target: &str) {
    let found = tempfile::tempdir().unwrap();
    let artifacts = home().join("artifacts").join(target);
    fs::create_dir_all(&artifacts).unwrap();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(home()).args(["run", "--quiet", "--release", "--locked", "--bin", target, "--"]);
    // What it is built with is its own business (`.cargo/config.toml`), not that of the run that this test is part of.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    // New inputs go to the first folder.
    cargo.arg(found.path()).arg(home().join("corpus").join(target));
    cargo
        .arg(format!("-max_total_time={LONG_SECONDS}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg("-timeout=10");
    cargo.arg(format!("-artifact_prefix={}/", artifacts.display())).stdin(Stdio::null());
    let status = cargo.status().expect("cargo");
    assert!(status.success(), "{target}: {status}; see above, the input is in {}", artifacts.display());
}

/// Of what nobody can read any more the neighbours would show nothing.
#[test]
fn what_was_written_by_this_version_is_read() {
    use stack::queue::{Letter, Payload};
    let read = |name: &str| fs::read(home().join("corpus").join(name)).unwrap();
    let call = Payload::decode(&read("calls/message").into()).unwrap();
    assert_eq!((call.call.bytes, &call.body[..]), (5, &b"hello"[..]));
    let (letter, call) = Letter::decode(&read("letters/whole").into()).unwrap();
    assert_eq!((letter.attempts, Payload::decode(&call).unwrap().call.bytes), (3, 5));
    assert_eq!(crate::queue::ledger::lines(&read("ledger/life")).count(), 3);
}

/// A target that is forgotten in one of the places would never run there.
#[test]
fn every_target_is_everywhere() {
    let wanted: BTreeSet<String> = NAMES.iter().map(ToString::to_string).collect();
    let stems = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(home().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let mut sources = stems("src/targets");
    sources.remove("mod");
    assert_eq!(sources, wanted);
    assert_eq!(stems("fuzz_targets"), wanted);
    assert_eq!(stems("corpus"), wanted);
    let manifest = fs::read_to_string(home().join("Cargo.toml")).unwrap();
    for name in &wanted {
        let calls = fs::read_to_string(home().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(calls.contains(&format!("targets::{name}::check")), "{calls}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}
