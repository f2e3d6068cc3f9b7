//! Boot and shutdown as data.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

use serde::Serialize;

use super::machine::Machine;
use super::screen;
use crate::pid1;
use crate::power::{self, Ending};
use crate::service::{JOURNALD, QUEUE_WORKER, SERVICES};

type Act = for<'a> fn(&'a Rc<Machine>) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A phase: its name, what it is for, the act.
struct Phase {
    name: &'static str,
    what: &'static str,
    run: Act,
}

/// The way up. A phase that says "begins" goes on beside the following ones.
const BOOT: [Phase; 12] = [
    Phase { name: "clock", what: "not before the image was built", run: |m| Box::pin(m.clock_floor()) },
    Phase { name: "settings", what: "sysctl.d", run: |m| Box::pin(m.settings()) },
    Phase {
        name: "sockets",
        what: "kept by pid 1, or bound before their services are there",
        run: |m| Box::pin(m.sockets()),
    },
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
        name: "leftovers",
        what: "begins: random seed, the kernel's last words",
        run: |m| Box::pin(m.leftovers()),
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
        what: "begins: journald, log, gateway, queue-worker",
        run: |m| Box::pin(m.start(&[JOURNALD, "log", "gateway", QUEUE_WORKER])),
    },
];

/// First: its calls go through the gateway.
const STOP_QUEUE_WORKER: Phase = Phase {
    name: "queue-worker",
    what: "makes no more calls, leaves the rest queued",
    run: |m| Box::pin(m.stop(QUEUE_WORKER)),
};
const STOP_GATEWAY: Phase =
    Phase { name: "gateway", what: "takes no more calls, drains", run: |m| Box::pin(m.stop_gateway()) };
const STOP_FUNCTIONS: Phase = Phase {
    name: "functions",
    what: "SIGTERM, what is left of 5 s, cgroup.kill",
    run: |m| Box::pin(m.stop_functions()),
};
const STOP_LOG: Phase = Phase { name: "log", what: "reads the last lines", run: |m| Box::pin(m.stop("log")) };
const STOP_NATS: Phase =
    Phase { name: "nats", what: "closes its streams", run: |m| Box::pin(m.stop("nats")) };
const STOP_CONTAINERD: Phase =
    Phase { name: "containerd", what: "closes its databases", run: |m| Box::pin(m.stop("containerd")) };
const STOP_SHIMS: Phase =
    Phase { name: "shims", what: "they ignore SIGTERM: cgroup.kill", run: |m| Box::pin(m.stop_shims()) };
const SAVE_CLOCK: Phase = Phase { name: "clock", what: "saves the time", run: |m| Box::pin(m.save_clock()) };
const LEAVE_SEED: Phase =
    Phase { name: "random seed", what: "leaves a new one", run: |m| Box::pin(m.leave_seed()) };
const STOP_JOURNAL: Phase = Phase {
    name: "journal",
    what: "journald writes all it has, and ends",
    run: |m| Box::pin(m.stop_journal()),
};

/// The way down; PID 1 does the rest.
const SHUTDOWN: [Phase; 10] = [
    STOP_QUEUE_WORKER,
    STOP_GATEWAY,
    STOP_FUNCTIONS,
    STOP_LOG,
    STOP_NATS,
    STOP_CONTAINERD,
    STOP_SHIMS,
    SAVE_CLOCK,
    LEAVE_SEED,
    STOP_JOURNAL,
];

/// The way down before all data goes: nothing is left for a next run. PID 1 marks the data partition, and the next
/// start erases it.
const RESET: [Phase; 8] = [
    STOP_QUEUE_WORKER,
    STOP_GATEWAY,
    STOP_FUNCTIONS,
    STOP_LOG,
    STOP_NATS,
    STOP_CONTAINERD,
    STOP_SHIMS,
    STOP_JOURNAL,
];

fn down(ending: Ending) -> &'static [Phase] {
    match ending {
        Ending::Poweroff | Ending::Reboot => &SHUTDOWN,
        Ending::Reset => &RESET,
    }
}

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
    for phase in down(ending) {
        (phase.run)(machine).await;
        screen::progress(&format!("{} down", phase.name));
    }
    machine.tell_end(ending);
}

/// A list of phases, as `bothyctl plan` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct List {
    title: &'static str,
    phases: Vec<Entry>,
}

/// A phase in it.
#[derive(Debug, Serialize)]
struct Entry {
    name: String,
    what: String,
}

/// All phases, in order.
pub(crate) fn plan() -> Vec<List> {
    let list = |title, phases: Vec<(&str, &str)>| List {
        title,
        phases: phases
            .into_iter()
            .map(|(name, what)| Entry { name: name.into(), what: what.into() })
            .collect(),
    };
    let services = SERVICES.iter().map(|s| (s.name, s.command.first().copied().unwrap_or_default()));
    let of_supervisor = |phases: &[Phase]| phases.iter().map(|phase| (phase.name, phase.what)).collect();
    let last = |ending| power::phases(ending).map(|phase| (phase.name, "")).collect();
    vec![
        list("pid 1, start", pid1::PHASES.iter().map(|phase| (phase.name, "")).collect()),
        list("supervisor, start", of_supervisor(&BOOT)),
        list("services", services.collect()),
        list("supervisor, power off or reboot", of_supervisor(down(Ending::Poweroff))),
        list("pid 1, power off or reboot", last(Ending::Poweroff)),
        list("supervisor, reset", of_supervisor(down(Ending::Reset))),
        list("pid 1, reset", last(Ending::Reset)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[Phase]) -> Vec<&'static str> {
        list.iter().map(|phase| phase.name).collect()
    }

    #[test]
    fn the_lists_are_these() {
        let up = [
            "clock",
            "settings",
            "sockets",
            "controls",
            "devices",
            "network",
            "storage",
            "leftovers",
            "runtime",
            "configuration",
            "identity",
            "services",
        ];
        assert_eq!(names(&BOOT), up);
        let stop = ["queue-worker", "gateway", "functions", "log", "nats", "containerd", "shims"];
        assert_eq!(names(down(Ending::Poweroff)), [&stop[..], &["clock", "random seed", "journal"]].concat());
        assert_eq!(names(down(Ending::Reboot)), names(down(Ending::Poweroff)));
        assert_eq!(names(down(Ending::Reset)), [&stop[..], &["journal"]].concat());
        let last = |ending| power::phases(ending).map(|phase| phase.name).collect::<Vec<_>>();
        let off = ["kill what is left", "sync", "unmount", "sync again", "reboot(2)"];
        assert_eq!(last(Ending::Poweroff), off);
        let reset =
            ["kill what is left", "sync", "unmount", "mark data to be erased", "sync again", "reboot(2)"];
        assert_eq!(last(Ending::Reset), reset);
        let first: Vec<_> = pid1::PHASES.iter().map(|phase| phase.name).collect();
        let expected = [
            "signals and Ctrl-Alt-Del",
            "kernel file systems",
            "protection from the memory killer",
            "room for descriptors",
            "device links",
            "cgroup tree",
            "shared mounts",
            "/etc overlay",
        ];
        assert_eq!(first, expected);
    }

    #[test]
    fn the_plan_shows_all_lists() {
        let lists = plan();
        let titles: Vec<_> = lists.iter().map(|list| list.title).collect();
        let expected = [
            "pid 1, start",
            "supervisor, start",
            "services",
            "supervisor, power off or reboot",
            "pid 1, power off or reboot",
            "supervisor, reset",
            "pid 1, reset",
        ];
        assert_eq!(titles, expected);
        let plan = serde_json::to_string(&lists).unwrap();
        for service in SERVICES {
            assert!(plan.contains(service.command[0]), "{plan}");
            assert!(names(&SHUTDOWN).iter().any(|name| service.name.starts_with(name)), "{}", service.name);
        }
    }
}
