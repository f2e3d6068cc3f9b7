//! `bothy`: builds Bothy images.
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use image::build::{self, Options};
use image::recipe::Recipe;
use image::squashfs::Compression;
use image::{host, programs};

/// Builds, boots, tests and measures Bothy images.
#[derive(Parser)]
#[command(name = "bothy", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build an image from a recipe.
    #[command(
        after_help = "Examples:\n  bothy build                       the image for x86-64 virtual machines\n  \
                            bothy build --release             the same, compressed for publishing\n  \
                            bothy build --locked M.json       exactly the packages of an earlier build's manifest\n  \
                            bothy build --update              with the newest packages of the mirror"
    )]
    Build(BuildArgs),
}

#[derive(Args)]
struct BuildArgs {
    /// A recipe's name in image/recipes, or a path to one.
    #[arg(default_value = "vm-x86_64")]
    recipe: String,
    /// Folder for the outputs [default: target/bothy].
    #[arg(long, value_name = "DIR")]
    out: Option<std::path::PathBuf>,
    /// Folder for downloads [default: ~/.cache/bothy].
    #[arg(long, value_name = "DIR")]
    cache: Option<std::path::PathBuf>,
    /// Debian mirror [default: the one of this machine's own apt].
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,
    /// Resolve packages again instead of taking those of the last build.
    #[arg(long, conflicts_with = "locked")]
    update: bool,
    /// Build exactly the packages of this manifest.
    #[arg(long, value_name = "MANIFEST")]
    locked: Option<std::path::PathBuf>,
    /// Compress for publishing: minutes instead of seconds.
    #[arg(long)]
    release: bool,
    /// Take the device's programs (init, stack, watchdog) from this folder instead of compiling them.
    #[arg(long, value_name = "DIR")]
    programs: Option<std::path::PathBuf>,
    /// Compile the device's programs and stop.
    #[arg(long, conflicts_with = "programs")]
    only_programs: bool,
    /// Do not install missing host tools; list them and stop.
    #[arg(long)]
    no_install: bool,
}

impl BuildArgs {
    fn options(self) -> image::Result<Options> {
        let mut options = Options::new(&self.recipe)?;
        options.out = self.out.unwrap_or(options.out);
        options.cache = self.cache.unwrap_or(options.cache);
        options.mirror = self.mirror;
        options.update = self.update;
        options.locked = self.locked;
        options.programs = self.programs;
        options.install = !self.no_install;
        if self.release {
            options.compression = Compression::Release;
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("bothy: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Build(args) => {
            if args.only_programs {
                let options = args.options()?;
                host::ensure(host::BUILD, options.install)?;
                let recipe = Recipe::load(&options.recipe)?;
                programs::build(&options.source, recipe.architecture)?;
                println!("{}", programs::folder(&options.source, recipe.architecture).display());
                return Ok(ExitCode::SUCCESS);
            }
            let artifacts = build::ensure(&args.options()?)?;
            println!("{}", artifacts.image.display());
            println!("{}", artifacts.compressed.display());
            println!("{}", artifacts.manifest.display());
            Ok(ExitCode::SUCCESS)
        }
    }
}
