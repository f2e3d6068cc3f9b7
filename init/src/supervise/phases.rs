//! Boot and shutdown as data.

use std::fmt::Write as _;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

use super::machine::Machine;
use super::screen;
use crate::pid1;
use crate::power::{self, Ending};
use crate::service::{JOURNALD, SERVICES};

type Act = for<'a> fn(&'a Rc<Machine>) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A phase: its name, what it is for, the act.
struct Phase {
    name: &'static str,
    what: &'static str,
    run: Act,
}

/// The way up. A phase that says "begins" goes on beside the following ones.
const BOOT: [Phase; 11] = [
    Phase { name: "clock", what: "not before the image was built", run: |m| Box::pin(m.clock_floor()) },
    Phase { name: "settings", what: "sysctl.d", run: |m| Box::pin(m.settings()) },
    Phase { name: "journal sockets", what: "bound before journald is there", run: |m| Box::pin(m.journal()) },
    Phase {
        name: "controls",
        what: "begins: pid 1, bothyctl, console, power button",
        run: |m| Box::pin(m.controls()),
    },
    Phase { name: "devices", what: "begins: modules for what is there", run: |m| Box::pin(m.devices()) },
    Phase { name: "network", what: "begins: links, dhcp", run: |m| Box::pin(m.network()) },
    Phase {
        name: "storage",
        what: "data partition on /var, made on first boot",
        run: |m| Box::pin(m.storage()),
    },
    Phase {
        name: "runtime",
        what: "begins: containerd, nats",
        run: |m| Box::pin(m.start(&["containerd", "nats"])),
    },
    Phase { name: "configuration", what: "bothy.toml, credentials", run: |m| Box::pin(m.configuration()) },
    Phase { name: "identity", what: "machine-id, hostname", run: |m| Box::pin(m.identity()) },
    Phase {
        name: "services",
        what: "begins: journald, log, gateway",
        run: |m| Box::pin(m.start(&[JOURNALD, "log", "gateway"])),
    },
];

/// The way down; PID 1 does the rest.
const SHUTDOWN: [Phase; 8] = [
    Phase { name: "gateway", what: "takes no more calls, drains", run: |m| Box::pin(m.stop("gateway")) },
    Phase {
        name: "functions",
        what: "SIGTERM, a short grace, cgroup.kill",
        run: |m| Box::pin(m.stop_functions()),
    },
    Phase { name: "log", what: "reads the last lines", run: |m| Box::pin(m.stop("log")) },
    Phase { name: "nats", what: "", run: |m| Box::pin(m.stop("nats")) },
    Phase { name: "containerd", what: "", run: |m| Box::pin(m.stop("containerd")) },
    Phase { name: "shims", what: "they ignore SIGTERM: cgroup.kill", run: |m| Box::pin(m.stop_shims()) },
    Phase { name: "clock", what: "saves the time", run: |m| Box::pin(m.save_clock()) },
    Phase {
        name: "journal",
        what: "journald writes all it has, and ends",
        run: |m| Box::pin(m.stop_journal()),
    },
];

/// Runs the way up; a request to end cuts it short.
pub(super) async fn boot(machine: &Rc<Machine>) {
    for phase in BOOT {
        if machine.is_ending() {
            return;
        }
        let begin = Instant::now();
        // Cut off, not waited for: a check of a large disk may take minutes, and PID 1 ends what it started.
        tokio::select! {
            () = (phase.run)(machine) => {}
            _ = machine.wait_for_end() => return,
        }
        tracing::info!("phase {} took {} ms", phase.name, begin.elapsed().as_millis());
    }
}

/// Runs the way down and hands over to PID 1.
pub(super) async fn shutdown(machine: &Rc<Machine>, ending: Ending) {
    machine.tell_stopping(ending);
    screen::progress(&format!("{} begins", ending.word()));
    for phase in SHUTDOWN {
        (phase.run)(machine).await;
        screen::progress(&format!("{} down", phase.name));
    }
    machine.tell_end(ending);
}

/// All phases as text.
pub(crate) fn plan() -> String {
    let mut text = String::new();
    let mut list = |title: &str, phases: &mut dyn Iterator<Item = (&str, &str)>| {
        let _ = writeln!(text, "{title}");
        for (number, (name, what)) in phases.enumerate() {
            let _ = writeln!(text, "{:>4} {name:<26} {what}", number + 1);
        }
    };
    list("pid 1, start:", &mut pid1::PHASES.iter().map(|phase| (phase.name, "")));
    list("supervisor, start:", &mut BOOT.iter().map(|phase| (phase.name, phase.what)));
    list("services:", &mut SERVICES.iter().map(|s| (s.name, s.command.first().copied().unwrap_or_default())));
    list("supervisor, end:", &mut SHUTDOWN.iter().map(|phase| (phase.name, phase.what)));
    list("pid 1, end:", &mut power::PHASES.iter().map(|name| (*name, "")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_starts_and_stops() {
        let plan = plan();
        for service in SERVICES {
            assert!(plan.contains(service.command[0]), "{plan}");
        }
        let down: Vec<_> = SHUTDOWN.iter().map(|phase| phase.name).collect();
        assert_eq!(down, ["gateway", "functions", "log", "nats", "containerd", "shims", "clock", "journal"]);
        let up: Vec<_> = BOOT.iter().map(|phase| phase.name).collect();
        let at = |name: &str| up.iter().position(|other| *other == name);
        assert!(at("storage") < at("runtime") && at("configuration") < at("services"));
        assert!(at("clock") == Some(0) && at("journal sockets") < at("runtime"));
    }
}
