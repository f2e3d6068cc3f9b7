//! `bothy`: builds, boots, tests and measures Bothy images.

mod cli;

use std::process::ExitCode;

use clap::Parser;
use cli::{Bench, BenchArgs, BuildArgs, Cli, Command, ConfigCommand};
use image::{bench, build, config, run, testing};

fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("bothy: {e}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Build(args) if args.only_programs => compile(args)?,
        Command::Build(args) => {
            let artifacts = build::ensure(&args.options()?)?;
            for path in [&artifacts.image, &artifacts.compressed, &artifacts.manifest, &artifacts.sbom] {
                println!("{}", path.display());
            }
        }
        Command::Run(args) => run::run(&args.options()?)?,
        Command::Test(args) => {
            if !testing::test(&args.options()?)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::TestProgram { program, arguments } => {
            return Err(testing::become_test(&program, &arguments).into());
        }
        Command::Bench(args) => measure(&args)?,
        Command::Config(ConfigCommand::Check { file }) => return Ok(config::check(&file)),
    }
    Ok(ExitCode::SUCCESS)
}

fn compile(args: BuildArgs) -> anyhow::Result<()> {
    println!("{}", build::compile(&args.options()?)?.display());
    Ok(())
}

fn measure(args: &BenchArgs) -> anyhow::Result<()> {
    let options = args.image.options()?;
    let figures = match args.name {
        Bench::Build => bench::build(&options, args.runs)?,
        Bench::Boot => bench::boot(&options, args.runs)?,
        Bench::Functions => bench::functions(&options, args.runs)?,
        Bench::Queue => bench::queue(&options, args.runs)?,
        Bench::Scale => bench::scale(&options, args.runs)?,
        Bench::Watchdog => bench::watchdog(&options, args.runs)?,
    };
    Ok(bench::print(&figures, args.json)?)
}
