//! `bothy test`: everything, from unit tests to machines that boot.
//!
//! Tests of whole machines find the image through `BOTHY_ARTIFACTS`, and through `BOTHY_SHELL_ARTIFACTS` its debug
//! flavour with one more function, a shell that runs what it is sent. Tests that run programs of the image on this host find
//! them through `BOTHY_ROOTFS`. All of them fail, rather than skip, without. Tests in a module `long` belong to the
//! second tier: a run without `--long` does not run them and counts them as not run (see `.config/nextest.toml`).

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::build;
use crate::flavour::Flavour;
use crate::progress::step;
use crate::qemu::{Error, Result};
use crate::recipe::{Architecture, Recipe};
use crate::{Artifacts, host};

/// What to test.
#[derive(Debug, Clone)]
pub struct Options {
    /// The image that the tests of whole machines boot.
    pub build: build::Options,
    /// Whether the second tier runs too.
    pub long: bool,
    /// Further arguments for nextest or, where that is missing, for `cargo test`.
    pub arguments: Vec<String>,
}

/// The part of a test's path that puts it into the second tier.
const LONG: &str = "long::";

/// Builds what is stale, runs the tests, tells whether all passed.
///
/// # Errors
/// A tool is missing, or the image cannot be built. A test that fails is no error.
pub fn test(options: &Options) -> Result<bool> {
    let long = if options.long { host::LONG } else { &[] };
    let tools = [host::BUILD, host::BOOT, host::TEST, long].concat();
    host::ensure(&tools, options.build.install)?;
    let artifacts = build::ensure(&options.build)?;
    let out = options.build.out.join(&artifacts.name);
    let shell = build::ensure(&build::Options { flavour: Flavour::Testing, ..options.build.clone() })?;
    let root = root_files(&artifacts, &out)?;
    let faults = out.join("emulator-faults");
    let _ = fs::remove_file(&faults);
    let nextest = has_nextest();
    if !nextest {
        eprintln!("bothy: cargo-nextest is not installed, so `cargo test` runs the tests");
    }
    let source = &options.build.source;
    let mut passed = true;
    for words in commands(nextest, options) {
        let mut command = cargo(source);
        command.args(&words).env("BOTHY_ARTIFACTS", out.join("artifacts.json")).env("BOTHY_ROOTFS", &root);
        command.env("BOTHY_SHELL_ARTIFACTS", options.build.out.join(&shell.name).join("artifacts.json"));
        command.env("BOTHY_CACHE", &options.build.cache).env("BOTHY_FAULTS", &faults);
        as_root(&mut command, &options.build)?;
        eprintln!("bothy: cargo {}", words.join(" "));
        passed &= status(&mut command)?.success();
    }
    let met = fs::read_to_string(&faults).unwrap_or_default();
    let count = met.lines().count();
    eprintln!("bothy: {count} boots were run again because of a fault of the emulator");
    for fault in met.lines() {
        eprintln!("bothy:   {fault}");
    }
    Ok(passed)
}

/// The command lines: one for the tests; and one for the examples in the documentation, which nextest does not run.
fn commands(nextest: bool, options: &Options) -> Vec<Vec<String>> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<String>>();
    let mut commands = Vec::new();
    if nextest {
        let profile = if options.long { "long" } else { "default" };
        let mut tests = words(&format!("nextest run --workspace --locked --profile {profile}"));
        tests.extend(options.arguments.iter().cloned());
        commands.push(tests);
        if options.arguments.is_empty() {
            commands.push(words("test --workspace --locked --doc"));
        }
        return commands;
    }
    let mut tests = words("test --workspace --locked --no-fail-fast");
    tests.extend(options.arguments.iter().cloned());
    if !options.long {
        if !options.arguments.iter().any(|word| word == "--") {
            tests.push("--".to_owned());
        }
        tests.extend(words(&format!("--skip {LONG}")));
    }
    commands.push(tests);
    commands
}

/// Names of test programs that need root: they make namespaces and containers, or become another user.
const AS_ROOT: [&str; 3] = ["native", "image_elsewhere", "functions"];

/// The part of a test's path that says the same of single tests in other programs.
const AS_ROOT_MODULE: &str = "as_root::";

/// Whether a test program needs root for what it is to run. Without the name of one test it would run all of its
/// tests: then one that needs root is enough.
fn needs_root(program: &str, arguments: &[OsString]) -> bool {
    let is = |known: &str| program.strip_prefix(known).is_some_and(|rest| rest.starts_with('-'));
    let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
    let single = words.iter().any(|word| word == "--exact" || word == "--list");
    AS_ROOT.iter().any(|known| is(known))
        || words.iter().any(|word| word.contains(AS_ROOT_MODULE))
        || (is("init") && !single)
}

/// What cargo and nextest start test programs through, so that those that need root get it.
fn runner() -> Result<String> {
    let program = std::env::current_exe().map_err(Error::file("find", "this program"))?;
    Ok(format!("{} test-program", program.display()))
}

/// Has cargo start what needs root so.
pub(crate) fn as_root(command: &mut Command, options: &build::Options) -> Result<()> {
    if !host::is_root() {
        command.env(runner_variable(Recipe::load(&options.recipe)?.architecture), runner()?);
    }
    Ok(())
}

fn runner_variable(architecture: Architecture) -> String {
    format!("CARGO_TARGET_{}_RUNNER", architecture.rust_target().to_uppercase().replace('-', "_"))
}

/// Becomes a test program: as root, through sudo, where it needs that.
///
/// # Errors
/// It cannot be started.
pub fn become_test(program: &Path, arguments: &[OsString]) -> Error {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let mut command = if needs_root(&name, arguments) && !host::is_root() {
        let mut command = Command::new("sudo");
        // sudo keeps neither of them, and the tests start cargo.
        let keep = ["PATH", "HOME"].map(|name| format!("{name}={}", std::env::var(name).unwrap_or_default()));
        command.args(["-E", "env"]).args(keep).arg(program);
        command
    } else {
        Command::new(program)
    };
    let failed = command.args(arguments).exec();
    Error::Start { program: format!("{}", program.display()), source: failed }
}

/// The image's root file system as files, unpacked again when the image has changed.
pub(crate) fn root_files(artifacts: &Artifacts, out: &Path) -> Result<PathBuf> {
    let root = out.join("root");
    let stamp = out.join("root.of");
    if root.is_dir() && fs::read_to_string(&stamp).is_ok_and(|of| of == artifacts.command_line) {
        return Ok(root);
    }
    let _step = step("unpack the root file system for tests on this host");
    let _ = fs::remove_file(&stamp);
    if root.exists() {
        fs::remove_dir_all(&root).map_err(Error::file("remove", &root))?;
    }
    artifacts.unpack_root(&root)?;
    fs::write(&stamp, &artifacts.command_line).map_err(Error::file("write", &stamp))?;
    Ok(root)
}

/// cargo in the workspace.
pub(crate) fn cargo(source: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(source).stdin(Stdio::null());
    command
}

fn has_nextest() -> bool {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["nextest", "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().map_err(|source| Error::Start { program: "cargo".to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(nextest: bool, long: bool, arguments: &[&str]) -> Vec<String> {
        let build = build::Options::new("vm-x86_64").unwrap();
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        let options = Options { build, long, arguments };
        commands(nextest, &options).into_iter().map(|words| words.join(" ")).collect()
    }

    #[test]
    fn root_is_for_those_tests_that_need_it() {
        let needs = |program: &str, words: &[&str]| {
            needs_root(program, &words.iter().map(OsString::from).collect::<Vec<_>>())
        };
        assert!(needs("native-0f", &["--exact", "life_of_a_function"]));
        assert!(needs("init-0f", &["--exact", "service::runner::tests::as_root::a_sandbox_hides"]));
        assert!(!needs("init-0f", &["--exact", "uuid::tests::x", "--nocapture"]));
        assert!(!needs("init-0f", &["--list", "--format", "terse"]));
        // As plain `cargo test` starts it.
        assert!(needs("init-0f", &["--skip", "long::"]));
        assert!(!needs("natives-0f", &[]) && !needs("image-0f", &[]));
    }

    #[test]
    fn the_second_tier_runs_only_when_asked_for() {
        assert_eq!(
            lines(true, false, &[]),
            ["nextest run --workspace --locked --profile default", "test --workspace --locked --doc"]
        );
        assert_eq!(lines(true, true, &["boot"]), ["nextest run --workspace --locked --profile long boot"]);
        assert_eq!(
            lines(false, false, &["--", "boot"]),
            ["test --workspace --locked --no-fail-fast -- boot --skip long::"]
        );
        assert_eq!(lines(false, true, &[]), ["test --workspace --locked --no-fail-fast"]);
    }
}
