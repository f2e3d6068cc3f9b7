//! The command line of `bothy`: what a user may say, and the options that it means.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use image::apt::Mirrors;
use image::build::Options;
use image::flavour::Flavour;
use image::squashfs::Compression;

/// Builds, boots, tests and measures Bothy images.
#[derive(Parser)]
#[command(name = "bothy", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `bothy` can do.
#[derive(Subcommand)]
pub enum Command {
    /// Build an image from a recipe.
    #[command(after_help = "Examples:\n  \
        bothy build                       the image for x86-64 virtual machines\n  \
        bothy build --release             the same, compressed for publishing\n  \
        bothy build --debug               the same with a shell behind the console's login\n  \
        bothy build --locked M.json       exactly the packages of an earlier build's manifest\n  \
        bothy build --update              with the newest packages of the mirror")]
    Build(BuildArgs),
    /// Build an image, boot it in a virtual machine and call a function on it.
    #[command(after_help = "Examples:\n  \
        bothy run                         stay up with the console until Ctrl-C; the disk is kept\n  \
        bothy run --once                  power off after the function's answer\n  \
        bothy run --fresh --firmware      a new disk, booted through UEFI firmware\n  \
        bothy run --debug                 log in at the console, then `shell`\n  \
        bothy run --memory 256 --port 8080")]
    Run(RunArgs),
    /// Run every test, those on real machines included.
    #[command(after_help = "Examples:\n  \
        bothy test                        the first tier: what has to pass before a change lands\n  \
        bothy test --long                 everything\n  \
        bothy test -- second_boot         only tests with this in their name")]
    Test(TestArgs),
    /// Start a test program, as root where it needs that.
    #[command(hide = true)]
    TestProgram {
        /// The program.
        program: PathBuf,
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Measure, with the floor beside it that the machine allows.
    #[command(
        after_help = "Examples:\n  bothy bench build\n  bothy bench boot --runs 5 --json\n  bothy bench functions\n  bothy bench queue --runs 5\n  bothy bench scale\n  bothy bench watchdog"
    )]
    Bench(BenchArgs),
    /// Work with configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// The image to work with.
#[derive(Args)]
pub struct ImageArgs {
    /// A recipe's name in image/recipes, or a path to one.
    #[arg(long, default_value = "vm-x86_64", value_name = "RECIPE")]
    recipe: String,
    /// Do not install missing host tools; list them and stop.
    #[arg(long)]
    no_install: bool,
}

impl ImageArgs {
    /// The build that is meant.
    pub fn options(&self) -> image::Result<Options> {
        let mut options = Options::new(&self.recipe)?;
        options.install = !self.no_install;
        Ok(options)
    }
}

/// Arguments of `bothy build`.
#[derive(Args)]
pub struct BuildArgs {
    /// A recipe's name in image/recipes, or a path to one.
    #[arg(default_value = "vm-x86_64")]
    recipe: String,
    /// Folder for the outputs [default: target/bothy].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Folder for downloads [default: ~/.cache/bothy].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Debian mirror; its security archive is looked for at URI-security [default: those of this machine's own apt].
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,
    /// Address of the security archive, where it is not that of the mirror with -security.
    #[arg(long, value_name = "URI", requires = "mirror")]
    security_mirror: Option<String>,
    /// Resolve packages again instead of taking those of the last build.
    #[arg(long, conflicts_with = "locked")]
    update: bool,
    /// Build exactly the packages of this manifest.
    #[arg(long, value_name = "MANIFEST")]
    locked: Option<PathBuf>,
    /// Build the debug flavour, called NAME-debug: one file more, a shell behind the console's login.
    #[arg(long)]
    debug: bool,
    /// Compress for publishing: minutes instead of seconds.
    #[arg(long)]
    release: bool,
    /// Take the device's programs (init, stack, containerd-shim-bothy-v2, watchdog) from this folder instead of compiling them.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Compile the device's programs and stop.
    #[arg(long, conflicts_with = "programs")]
    pub only_programs: bool,
    /// Do not install missing host tools; list them and stop.
    #[arg(long)]
    no_install: bool,
}

fn flavour(debug: bool) -> Flavour {
    if debug { Flavour::Debug } else { Flavour::Plain }
}

/// Paths are kept in files that others read from other folders.
fn absolute(path: Option<PathBuf>) -> image::Result<Option<PathBuf>> {
    path.map(|path| std::path::absolute(&path).map_err(image::Error::read(&path))).transpose()
}

impl BuildArgs {
    /// The build that is meant.
    pub fn options(self) -> image::Result<Options> {
        let mut options = Options::new(&self.recipe)?;
        options.out = absolute(self.out)?.unwrap_or(options.out);
        options.cache = absolute(self.cache)?.unwrap_or(options.cache);
        options.mirrors = self.mirror.map(|uri| Mirrors::new(uri, self.security_mirror));
        options.update = self.update;
        options.locked = absolute(self.locked)?;
        options.programs = absolute(self.programs)?;
        options.install = !self.no_install;
        options.flavour = flavour(self.debug);
        if self.release {
            options.compression = Compression::Release;
        }
        Ok(options)
    }
}

/// Arguments of `bothy run`.
#[derive(Args)]
pub struct RunArgs {
    #[command(flatten)]
    image: ImageArgs,
    /// Run the debug flavour: one file more, a shell behind the console's login.
    #[arg(long)]
    debug: bool,
    /// Power off after the function's answer.
    #[arg(long)]
    once: bool,
    /// Forget the disk of earlier runs.
    #[arg(long)]
    fresh: bool,
    /// Boot through UEFI firmware instead of starting the kernel directly.
    #[arg(long)]
    firmware: bool,
    /// Memory in MiB.
    #[arg(long, default_value_t = 512, value_name = "MIB")]
    memory: u32,
    /// Port of 127.0.0.1 for the gateway [default: any free one].
    #[arg(long)]
    port: Option<u16>,
    /// File for the console [default: in the machine's folder].
    #[arg(long, value_name = "FILE")]
    console: Option<PathBuf>,
}

impl RunArgs {
    /// The run that is meant.
    pub fn options(self) -> image::Result<image::run::Options> {
        Ok(image::run::Options {
            build: image::build::Options { flavour: flavour(self.debug), ..self.image.options()? },
            fresh: self.fresh,
            once: self.once,
            firmware: self.firmware,
            memory_mib: self.memory,
            port: self.port,
            console: self.console,
        })
    }
}

/// Arguments of `bothy test`.
#[derive(Args)]
pub struct TestArgs {
    #[command(flatten)]
    image: ImageArgs,
    /// Also what takes too long for every change.
    #[arg(long)]
    long: bool,
    /// Further arguments for the test runner.
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl TestArgs {
    /// The tests that are meant.
    pub fn options(self) -> image::Result<image::testing::Options> {
        Ok(image::testing::Options {
            build: self.image.options()?,
            long: self.long,
            arguments: self.arguments,
        })
    }
}

/// Arguments of `bothy bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// What to measure.
    pub name: Bench,
    #[command(flatten)]
    pub image: ImageArgs,
    /// How often; the median counts.
    #[arg(long, default_value_t = 3)]
    pub runs: usize,
    /// One line of JSON for each figure.
    #[arg(long)]
    pub json: bool,
}

/// The benches.
#[derive(Clone, Copy, ValueEnum)]
pub enum Bench {
    /// How long a build takes: cold, unchanged, one file changed.
    Build,
    /// How long a machine takes to a function's answer, and what it costs while idle.
    Boot,
    /// What a function costs: cold starts, calls, memory. Natively, as root.
    Functions,
    /// How many asynchronous calls are taken and made in a second, and that none is lost. Natively, as root.
    Queue,
    /// How long a function takes that was scaled to zero. Natively, as root.
    Scale,
    /// How large the watchdog is, in a function's image and in memory.
    Watchdog,
}

/// What can be done with configuration files.
#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Check a bothy.toml: every problem with its line and column.
    #[command(after_help = "Example:\n  bothy config check bothy.toml")]
    Check {
        /// The file.
        file: PathBuf,
    },
}
