//! `bothyctl poweroff`, `reboot` and `reset`.

use std::process::ExitCode;

use rustix::process::{Pid, Signal, kill_process};

use super::confirmation;
use super::transport::Machine;
use crate::error::{Error, Result};
use crate::power::Ending;
use crate::request::Request;

pub(super) fn run(machine: &Machine, ending: Ending, yes: bool) -> Result<ExitCode> {
    let at = match machine {
        Machine::Remote(host, _) => Some(format!("the machine at {host}")),
        // What cannot be taken back is asked about everywhere.
        Machine::Local => (ending == Ending::Reset).then(|| "this machine, erasing all its data".to_owned()),
    };
    if let (Some(at), false) = (at, yes) {
        confirmation::needs_terminal(ending.word())?;
        if !confirmation::given(&format!("{} {at}?", ending.word())) {
            return Ok(ExitCode::FAILURE);
        }
    }
    let request = match ending {
        Ending::Poweroff => Request::Poweroff {},
        Ending::Reboot => Request::Reboot {},
        Ending::Reset => Request::Reset {},
    };
    match machine.ask(&request, &mut |_| Ok(())) {
        Err(error @ Error::Ask { .. }) if !machine.is_remote() => {
            eprintln!("bothyctl: {error}; asking pid 1");
            tell_pid_1(ending)?;
        }
        other => other?,
    }
    println!("{} begins", ending.word());
    Ok(ExitCode::SUCCESS)
}

/// PID 1 does it with or without a supervisor.
fn tell_pid_1(ending: Ending) -> Result<()> {
    let signal = match ending {
        Ending::Poweroff => Signal::USR2,
        Ending::Reboot => Signal::TERM,
        Ending::Reset => {
            let source = std::io::Error::other("only the supervisor does that; nothing was done");
            return Err(Error::Control { act: "ask for a reset", device: "pid 1".to_owned(), source });
        }
    };
    kill_process(Pid::INIT, signal).map_err(|errno| Error::Control {
        act: "signal",
        device: "pid 1".to_owned(),
        source: errno.into(),
    })
}
