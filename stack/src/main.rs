//! `stack`: the programs of the OpenFaaS-compatible stack in one file.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use stack::{gateway, handed, log, logging, worker};

#[derive(Parser)]
#[command(name = "stack", version, about = "The OpenFaaS-compatible stack of a Bothy machine")]
struct Cli {
    /// What to log, such as info,stack=debug
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    #[command(subcommand)]
    program: Program,
}

#[derive(Subcommand)]
enum Program {
    /// Serve the API and keep the functions running
    Gateway(Box<gateway::Options>),
    /// Make the asynchronous calls that wait in the queues
    QueueWorker(Box<worker::Options>),
    /// Carry the functions' output into the journal
    Log {
        /// Folder of the FIFOs for the functions' output
        #[arg(long, value_name = "FOLDER", default_value = "/run/bothy/fifo")]
        fifo_dir: PathBuf,
        /// journald's native socket
        #[arg(long, value_name = "SOCKET", default_value = "/run/systemd/journal/socket")]
        journal: PathBuf,
    },
}

/// Threads of the gateway for all but calls: the second one while the first is at something long.
const WORKERS: usize = 2;

fn main() -> anyhow::Result<()> {
    let handed = handed::take();
    let cli = Cli::parse();
    match cli.program {
        Program::Gateway(options) => {
            let _last_words = logging::start("gateway", cli.log.as_deref());
            // Calls have threads of their own.
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
            let served = runtime.block_on(gateway::run(*options, handed));
            // A blocked thread (a disk that does not answer) must not hold up the end.
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
            Ok(served?)
        }
        Program::QueueWorker(options) => {
            let _last_words = logging::start("queue-worker", cli.log.as_deref());
            // It waits for others most of the time: one thread is enough, and the smallest.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let worked = runtime.block_on(worker::run(*options));
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
            Ok(worked?)
        }
        Program::Log { fifo_dir, journal } => {
            let _last_words = logging::start("log", cli.log.as_deref());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(log::run(&fifo_dir, &journal, handed))?)
        }
    }
}
