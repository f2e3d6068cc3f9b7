//! `bothyctl console`: the login at the machine's console, and the commands behind it.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::process::getpgrp;
use rustix::termios::tcsetpgrp;
use sha2::{Digest, Sha256};

use super::terminal::{self, Typed};
use super::{account, words};

/// The user's name, when the supervisor has read it already.
pub(crate) const LOGIN_VARIABLE: &str = "BOTHY_LOGIN";
/// Exit code of a refused login.
pub(crate) const LOGIN_REFUSED: u8 = 3;

const PROMPT: &str = "bothyctl> ";
/// An open console is everybody's: a session that nobody uses ends.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// The same before anybody is in.
const PASSWORD_LIMIT: Duration = Duration::from_secs(60);
/// What the debug flavour has besides.
const BUSYBOX: &str = "/usr/bin/busybox";

const HELP: &str = "\
Commands are those of bothyctl: status, services, logs, ...; `COMMAND --help` has examples.
  help      this, and the list of commands
  exit      end the session (so does Ctrl-D)";

/// Runs a session on standard input.
pub(super) fn run() -> ExitCode {
    ignore_keys();
    let code = login();
    // The end of a session hangs its terminal up, and what a serial line has not sent by then is lost.
    terminal::drain();
    code
}

fn login() -> ExitCode {
    let user = match std::env::var(LOGIN_VARIABLE) {
        Ok(user) => user,
        Err(_) => match terminal::ask("login: ", Some(PASSWORD_LIMIT)) {
            Typed::Line(user) => user.trim().to_owned(),
            _ => return ExitCode::SUCCESS,
        },
    };
    let password = match terminal::ask_secret("password: ", Some(PASSWORD_LIMIT)) {
        Typed::Line(password) => password,
        Typed::End | Typed::Idle => {
            eprintln!("no password, no login");
            return ExitCode::FAILURE;
        }
    };
    match admits(Path::new(account::PUBLISHED), user.trim(), &password) {
        Ok(true) => {}
        Ok(false) => return ExitCode::from(LOGIN_REFUSED),
        Err(error) => {
            eprintln!("nobody can log in: {error}; the configuration is read once the data disk is there");
            return ExitCode::FAILURE;
        }
    }
    println!("\nThis is {}. `help` lists the commands, `exit` ends the session.", name());
    session();
    ExitCode::SUCCESS
}

/// Whether these are the gateway's credentials. Digests are compared, and all of their bytes, so that the time taken
/// tells nothing about where a guess was wrong.
fn admits(secrets: &Path, user: &str, password: &str) -> io::Result<bool> {
    let read = |name: &str| {
        let path = secrets.join(name);
        fs::read_to_string(&path)
            .map(|text| text.trim().to_owned())
            .map_err(|error| io::Error::new(error.kind(), format!("read {}: {error}", path.display())))
    };
    let right = (read("basic-auth-user")?, read("basic-auth-password")?);
    if right.1.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the password is empty"));
    }
    let digest = |user: &str, password: &str| Sha256::digest(format!("{user}\0{password}"));
    let (given, right) = (digest(user, password), digest(&right.0, &right.1));
    Ok(given.iter().zip(right.iter()).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0)
}

fn name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

fn session() {
    loop {
        let line = match terminal::ask(PROMPT, Some(IDLE)) {
            Typed::Line(line) => line,
            Typed::End => break println!(),
            Typed::Idle => break println!("\nNobody typed for {} minutes.", IDLE.as_secs() / 60),
        };
        let mut words = match words::split(&line) {
            Ok(words) => words,
            Err(why) => {
                eprintln!("{why}");
                continue;
            }
        };
        if words.first().is_some_and(|word| word == "bothyctl") {
            words.remove(0);
        }
        match words.first().map(String::as_str) {
            None => {}
            Some("exit" | "quit" | "logout") => break,
            Some("help" | "?") => help(),
            Some("shell") if Path::new(BUSYBOX).exists() => shell(),
            Some("shell") => {
                eprintln!("there is no shell in this image; the debug flavour has one: bothy build --debug");
            }
            Some("console") => eprintln!("this is the console"),
            Some(_) => start(Command::new("/proc/self/exe").arg0("bothyctl").args(&words)),
        }
    }
    println!("The session has ended.");
}

fn help() {
    println!("{HELP}");
    if Path::new(BUSYBOX).exists() {
        println!("  shell     a root shell: this is the debug flavour");
    }
    println!();
    start(Command::new("/proc/self/exe").arg0("bothyctl").arg("--help"));
}

/// A shell as after a login. Debian builds busybox so that it finds its own programs without links.
fn shell() {
    let mut command = Command::new(BUSYBOX);
    command.arg0("-sh").env_clear().current_dir("/root");
    command.env("PATH", "/usr/sbin:/usr/bin").env("HOME", "/root").env("USER", "root");
    command.env("LOGNAME", "root").env("SHELL", BUSYBOX).env("TERM", "linux").env("PS1", "\\h:\\w# ");
    start(&mut command);
}

/// Runs a program in the foreground, and takes the terminal back.
fn start(command: &mut Command) {
    // SAFETY: system calls only.
    unsafe {
        command.pre_exec(|| {
            for signal in KEYS {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        });
    }
    if let Err(error) = command.status() {
        eprintln!("start {}: {error}", command.get_program().to_string_lossy());
    }
    let input = io::stdin();
    let _ = tcsetpgrp(&input, getpgrp());
    terminal::make_sane(&input);
}

/// Ctrl-C, Ctrl-\, Ctrl-Z; and what taking the terminal back from another group raises.
const KEYS: [i32; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP, libc::SIGTTOU];

/// Ctrl-C ends a command, not the session.
fn ignore_keys() {
    for signal in KEYS {
        // SAFETY: no handler is set.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_ones() {
        let folder = tempfile::tempdir().unwrap();
        assert!(admits(folder.path(), "admin", "hay").is_err());
        fs::write(folder.path().join("basic-auth-user"), "admin\n").unwrap();
        fs::write(folder.path().join("basic-auth-password"), "\n").unwrap();
        assert!(admits(folder.path(), "admin", "").is_err(), "an empty password lets nobody in");
        fs::write(folder.path().join("basic-auth-password"), "hay\n").unwrap();
        assert!(admits(folder.path(), "admin", "hay").unwrap());
        for (user, password) in [("admin", "ha"), ("admin", ""), ("root", "hay"), ("", ""), ("adminh", "ay")]
        {
            assert!(!admits(folder.path(), user, password).unwrap(), "{user} {password}");
        }
    }
}
