//! Which of the programs in this file is meant: by the name it is called by, or by the first argument.

use std::path::Path;
use std::process::ExitCode;

use crate::{bothyctl, initrd, modules, pid1, service, supervise};

/// Runs the program that `arguments` (the name first) mean.
pub fn main(arguments: Vec<String>) -> ExitCode {
    let name = arguments.first().map_or("", String::as_str);
    let name = Path::new(name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let rest = arguments.get(1..).unwrap_or_default();
    match name.as_str() {
        "modprobe" => modules::modprobe(rest).into(),
        "bothyctl" => bothyctl::run(arguments),
        // The kernel passes words of its command line that it does not know: PID 1 takes none.
        _ if std::process::id() == 1 => {
            if initrd::is_here() {
                initrd::run()
            } else {
                pid1::run()
            }
        }
        _ => match rest.split_first() {
            Some((applet, _)) if applet == "supervise" => supervise::run(),
            Some((applet, rest)) if applet == "modprobe" => modules::modprobe(rest).into(),
            Some((applet, _)) if applet == "bothyctl" => bothyctl::run(rest_of(&arguments)),
            Some((applet, rest)) if applet == "exec-with-sockets" => {
                eprintln!("init: {}", service::exec_with_sockets(rest));
                ExitCode::from(127)
            }
            _ => {
                eprintln!(
                    "usage: init supervise | init modprobe NAME… | init bothyctl …; as process 1: the machine's init"
                );
                ExitCode::from(2)
            }
        },
    }
}

fn rest_of(arguments: &[String]) -> Vec<String> {
    arguments.get(1..).unwrap_or_default().to_vec()
}
