//! `bothy bench build`: what building costs.
//!
//! The build that is measured is the command itself, in a process of its own, with folders of its own. Our programs
//! are compiled beforehand: how long cargo takes is not the builder's doing, and it does not repeat.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use super::{Figure, median};
use crate::build::{Options, compile};
use crate::progress::step;
use crate::qemu::{Error, Result};
use crate::recipe::Recipe;
use crate::{Artifacts, host, place};

const BENCH: &str = "build";

/// How often an unchanged image is built.
const UNCHANGED_RUNS: usize = 5;

/// What one build took.
struct Cost {
    wall: Duration,
    /// User and system, of the build and everything that it started.
    cpu: Duration,
}

/// Measures `cold_cpu`, `unchanged`, `one_file` and `image_zst`.
///
/// # Errors
/// A build fails, or its folders cannot be made.
pub fn build(options: &Options, runs: usize) -> Result<Vec<Figure>> {
    host::ensure(host::BUILD, options.install)?;
    let recipe = Recipe::load(&options.recipe)?;
    // Not measured: what cargo does. A cold cache has other libraries to link with, and so would compile all anew.
    let programs = compile(options)?;
    let options = &Options { programs: Some(programs), ..options.clone() };
    let folder = place::target(&options.source).join("bothy/bench/build");
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(Error::file("remove", &folder))?;
    }
    fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    let text = fs::read_to_string(&options.recipe).map_err(Error::file("read", &options.recipe))?;
    let copy = folder.join("recipe.toml");
    let write = |text: &str| fs::write(&copy, text).map_err(Error::file("write", &copy));
    write(&text)?;
    let once = |what: &str| {
        let _step = step(what);
        measured(options, &copy, &folder)
    };

    let cold = once("build with an empty cache")?;
    let mut unchanged = Vec::new();
    for _ in 0..UNCHANGED_RUNS {
        unchanged.push(once("build again, nothing changed")?.wall.as_secs_f64());
    }
    let mut one_file = Vec::new();
    for run in 0..runs.max(1) {
        // One file more, one file less: in turn, so that each build has something to do.
        write(&if run % 2 == 0 { with_one_more_file(&options.recipe, &text)? } else { text.clone() })?;
        one_file.push(once("build again, one file changed")?.wall.as_secs_f64());
    }
    let out = folder.join("out").join(&recipe.name);
    let artifacts = Artifacts::load(&out).ok_or_else(|| Error::Disk {
        path: out.clone(),
        reason: "the build left no description of what it made".to_owned(),
    })?;
    let packed =
        fs::metadata(&artifacts.compressed).map_err(Error::file("read", &artifacts.compressed))?.len();
    let figure = |name, value, unit| Figure::new(BENCH, name, value, unit);
    Ok(vec![
        figure("cold_cpu", cold.cpu.as_secs_f64(), "s"),
        figure("unchanged", median(unchanged).unwrap_or_default(), "s"),
        figure("one_file", median(one_file).unwrap_or_default(), "s"),
        figure("image_zst", packed as f64, "bytes"),
    ])
}

/// Runs `bothy build` in folders below `folder`.
fn measured(options: &Options, recipe: &Path, folder: &Path) -> Result<Cost> {
    let program = std::env::current_exe().map_err(Error::file("find", "this program"))?;
    let mut command = Command::new(&program);
    command.current_dir(&options.source).arg("build").arg(recipe);
    command.arg("--out").arg(folder.join("out")).arg("--cache").arg(folder.join("cache")).arg("--no-install");
    if let Some(programs) = &options.programs {
        command.arg("--programs").arg(programs);
    }
    let before = children_cpu()?;
    let began = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.map_err(|source| Error::Start { program: "bothy build".to_owned(), source })?;
    let wall = began.elapsed();
    if !status.success() {
        return Err(Error::Ended { status, stderr: "bothy build failed, see above".to_owned() });
    }
    Ok(Cost { wall, cpu: children_cpu()?.saturating_sub(before) })
}

/// Processor time of all children that have ended, and of theirs.
fn children_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_err(|errno| Error::file("read", "the processor time of child processes")(errno.into()))?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(Duration::from_secs_f64(seconds(usage.user_time()) + seconds(usage.system_time())))
}

/// The recipe with one more file of a package that it has anyway.
fn with_one_more_file(path: &Path, recipe: &str) -> Result<String> {
    let mut in_packages = false;
    let mut done = false;
    let mut lines = Vec::new();
    for line in recipe.lines() {
        if line.starts_with('[') {
            in_packages = line.trim() == "[packages]";
        }
        match line.split_once(" = [") {
            Some((package, files)) if in_packages && !done && files.contains('"') => {
                lines.push(format!("{package} = [\"usr/share/doc/{package}/copyright\", {files}"));
                done = true;
            }
            _ => lines.push(line.to_owned()),
        }
    }
    if done {
        return Ok(lines.join("\n") + "\n");
    }
    let reason = "no package with a list of files in one line, to which one could be added".to_owned();
    Err(crate::Error::Recipe { path: path.to_owned(), reason }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_more() {
        let path = Path::new("recipe.toml");
        let recipe = "tools = [\"a\"]\n[packages]\ncrun = [\"usr/bin/crun\"]\nnft = [\"usr/sbin/nft\"]\n";
        let more = with_one_more_file(path, recipe).unwrap();
        assert_eq!(
            more,
            "tools = [\"a\"]\n[packages]\ncrun = [\"usr/share/doc/crun/copyright\", \"usr/bin/crun\"]\n\
             nft = [\"usr/sbin/nft\"]\n"
        );
        assert!(with_one_more_file(path, "tools = [\"a\"]\n").is_err());
    }
}
