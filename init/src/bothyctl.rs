//! `bothyctl`: what the machine is doing, and its end.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rustix::process::{Pid, Signal, kill_process};

use crate::board::Status;
use crate::error::{Error, Result};
use crate::file;
use crate::power::Ending;
use crate::supervise;

const EXAMPLES: &str = "\
Examples:
  bothyctl status          services, address, problems
  bothyctl status --json   the same for programs
  bothyctl plan            the phases of start and end, in order
  bothyctl poweroff        orderly end";

/// Looks at and ends this machine.
#[derive(Debug, Parser)]
#[command(name = "bothyctl", after_help = EXAMPLES, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show services, address and problems; exit code 1 when not healthy
    Status {
        /// Print status.json as it is
        #[arg(long)]
        json: bool,
    },
    /// Stop everything in order and power off
    Poweroff,
    /// Stop everything in order and start again
    Reboot,
    /// Print the phases of start and end, in order
    Plan,
}

/// Runs it; the first argument is the name.
pub(crate) fn run(arguments: Vec<String>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let done = match arguments.command {
        Command::Status { json } => status(json),
        Command::Poweroff => end(Ending::Poweroff),
        Command::Reboot => end(Ending::Reboot),
        Command::Plan => {
            print!("{}", supervise::plan());
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("bothyctl: {error}");
        ExitCode::FAILURE
    })
}

fn status(json: bool) -> Result<ExitCode> {
    let text = file::read(supervise::STATUS)?;
    let status: Status = serde_json::from_str(&text)
        .map_err(|error| Error::Read { path: supervise::STATUS.into(), source: error.into() })?;
    if json {
        println!("{text}");
    } else {
        print!("{}", describe(&status));
    }
    Ok(if status.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn describe(status: &Status) -> String {
    let health = if status.healthy { "healthy" } else { "not healthy" };
    let mut text = format!("{} {} {health}\n", status.hostname, status.url);
    text += &format!("network {}\ndata {}\nconfig {}\n", status.network, status.data, status.config);
    for service in &status.services {
        let state = service.state;
        let pid = service.pid.map_or(String::new(), |pid| format!(" pid {pid}"));
        text += &format!("service {} {state}{pid} restarts {}\n", service.name, service.restarts);
    }
    for trouble in status.troubles() {
        text += &format!("problem: {}\n", trouble.replace('\n', "\n         "));
    }
    text
}

/// Asks the supervisor; if it does not answer, PID 1, which then does it with or without one.
fn end(ending: Ending) -> Result<ExitCode> {
    let path = Path::new(supervise::SOCKET);
    let asked = UnixStream::connect(path).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        stream.write_all(ending.word().as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    match asked {
        Ok(answer) if answer.trim() == "ok" => return Ok(ExitCode::SUCCESS),
        Ok(answer) => eprintln!("bothyctl: the supervisor says: {}", answer.trim()),
        Err(source) => eprintln!("bothyctl: {}; asking pid 1", Error::Ask { path: path.to_owned(), source }),
    }
    let signal = match ending {
        Ending::Poweroff => Signal::USR2,
        Ending::Reboot => Signal::TERM,
    };
    kill_process(Pid::INIT, signal).map_err(|errno| Error::Control {
        act: "signal",
        device: "pid 1".to_owned(),
        source: errno.into(),
    })?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
        assert!(Arguments::try_parse_from(["bothyctl", "status", "--json"]).is_ok());
        assert!(Arguments::try_parse_from(["bothyctl", "dance"]).is_err());
    }

    #[test]
    fn a_problem_of_many_lines_stays_readable() {
        let status = Status { problems: [("x".into(), "a\nb".into())].into(), ..Status::default() };
        assert!(describe(&status).ends_with("problem: a\n         b\n"));
    }
}
