//! `bothyctl`: what a machine is doing, and its end. On the machine itself through the supervisor's socket, elsewhere
//! through the gateway; what is asked and what comes back is the same.

mod account;
mod arguments;
mod config;
mod confirmation;
mod console;
mod end;
mod http;
mod logs;
mod moment;
mod plan;
mod queue;
mod services;
mod status;
mod table;
pub(crate) mod terminal;
mod top;
mod transport;
pub(crate) mod value;
mod words;

use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::error::{Error, Result};
use crate::power::Ending;
use crate::request::SOCKET;
use account::Said;
use arguments::{Arguments, Command};
use http::Host;
use transport::Machine;
use value::of;

pub(crate) use console::{LOGIN_REFUSED, LOGIN_VARIABLE};

/// Exit code of a command line that means nothing.
const USAGE: u8 = 2;

/// Runs it; the first argument is the name.
pub(crate) fn run(arguments: Vec<String>) -> ExitCode {
    end_quietly_with_the_reader();
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    carry_out(arguments).unwrap_or_else(|error| {
        eprintln!("bothyctl: {error}");
        ExitCode::from(if matches!(error, Error::Usage(_)) { USAGE } else { 1 })
    })
}

/// `bothyctl logs | head`: Rust's programs ignore SIGPIPE and then fail at the next line that they print.
fn end_quietly_with_the_reader() {
    // SAFETY: no handler is set; this process is a command, not the supervisor.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

fn carry_out(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { command, json, host, user, password_file } = arguments;
    let said = Said { user, password_file };
    let host = host.or_else(|| std::env::var("BOTHY_HOST").ok().filter(|host| !host.is_empty()));
    let host = host.map(|text| Host::parse(&text)).transpose().map_err(Error::Usage)?;
    match command {
        Command::Console => return Ok(console::run()),
        Command::Completion { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "bothyctl", &mut text);
            print!("{}", String::from_utf8_lossy(&text));
            return Ok(ExitCode::SUCCESS);
        }
        Command::Login => return log_in(host, &said),
        _ => {}
    }
    let machine = match host {
        Some(host) => {
            let account = account::find(&host, &said)?;
            Machine::Remote(host, account)
        }
        None if Path::new(SOCKET).parent().is_some_and(Path::exists) => Machine::Local,
        None => {
            return Err(Error::Usage(
                "this is no Bothy machine; name one: bothyctl --host http://ADDRESS:8080 COMMAND".to_owned(),
            ));
        }
    };
    match command {
        Command::Status => status::run(&machine, json),
        Command::Services { name } => services::run(&machine, name, json),
        Command::Logs(arguments) => logs::run(&machine, *arguments, json),
        Command::Top(arguments) => top::run(&machine, &arguments, json),
        Command::Config { reveal } => config::run(&machine, reveal, json),
        Command::Credentials => config::credentials(&machine, json),
        Command::Queue(command) => queue::run(&machine, command, json),
        Command::Plan => plan::run(&machine, json),
        Command::Poweroff { yes } => end::run(&machine, Ending::Poweroff, yes),
        Command::Reboot { yes } => end::run(&machine, Ending::Reboot, yes),
        Command::Reset { yes } => end::run(&machine, Ending::Reset, yes),
        Command::Console | Command::Completion { .. } | Command::Login => Ok(ExitCode::SUCCESS),
    }
}

/// Asks for user and password, tries them, keeps them.
fn log_in(host: Option<Host>, said: &Said) -> Result<ExitCode> {
    let host =
        host.ok_or_else(|| Error::Usage("login to which machine? bothyctl login --host URL".to_owned()))?;
    let account = if said.password_file.is_some() {
        account::find(&host, said)?
    } else {
        account::ask(&host, said.user.as_deref())?
    };
    let machine = Machine::Remote(host.clone(), account.clone());
    let status = machine.ask_one(&crate::request::Request::Status {})?;
    let path = account::keep(&host, &account)?;
    println!(
        "logged in at {}, kept in {}",
        of(&status, "hostname").as_str().unwrap_or("the machine"),
        path.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Prints an object on one line, as it came.
fn print_json(value: &serde_json::Value) {
    println!("{value}");
}
