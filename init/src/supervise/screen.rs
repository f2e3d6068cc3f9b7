//! The console: a line for each step of the boot, one when all is well, one for each problem.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use super::text;
use crate::board::{Board, State, Status};
use crate::console::say;

/// How long the good news may wait for an address that is being asked for.
const ADDRESS_LIMIT: Duration = Duration::from_secs(5);

/// User and password that this device made itself.
pub(super) type Made = Rc<RefCell<Option<(String, String)>>>;

/// A step, with the kernel's clock.
pub(super) fn progress(step: &str) {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    say(&format!("bothy: [{:>6}] {step}", uptime.split_whitespace().next().unwrap_or("?")));
}

/// What was said already.
#[derive(Default)]
struct Said {
    states: BTreeMap<String, State>,
    facts: BTreeMap<&'static str, String>,
    troubles: BTreeSet<String>,
    ready: Option<String>,
}

/// Shows what changes.
pub(super) async fn show(board: Board, made: Made) {
    let mut changes = board.changes();
    let mut said = Said::default();
    let mut healthy_since = None;
    loop {
        changes.borrow_and_update();
        let status = board.status();
        steps(&status, &mut said);
        healthy_since =
            if status.healthy { healthy_since.or(Some(tokio::time::Instant::now())) } else { None };
        let wait_until = healthy_since.map(|since| since + ADDRESS_LIMIT);
        let in_time = wait_until.is_some_and(|until| tokio::time::Instant::now() < until);
        let waits = status.healthy && !status.settled && in_time;
        if status.healthy && !waits {
            let line = text::ready(&status);
            if said.ready.as_ref() != Some(&line) {
                say(&text::screen(&status, made.borrow().as_ref()));
                say(&line);
                said.ready = Some(line);
            }
        } else if !status.healthy {
            // Said again when it is well again. That it is not well while things end is no news.
            let ends = |state| matches!(state, State::Stopping | State::Stopped);
            if said.ready.take().is_some() && !status.services.iter().any(|service| ends(service.state)) {
                progress("not healthy");
            }
        }
        let limit = async {
            match wait_until.filter(|_| waits) {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = limit => {}
        }
    }
}

fn steps(status: &Status, said: &mut Said) {
    let facts = [
        ("network", &status.network),
        ("data", &status.data),
        ("config", &status.config),
        ("name", &status.hostname),
    ];
    for (name, fact) in facts {
        if !fact.is_empty() && said.facts.get(name) != Some(fact) {
            progress(&format!("{name}: {fact}"));
            said.facts.insert(name, fact.clone());
        }
    }
    for service in &status.services {
        if said.states.insert(service.name.clone(), service.state) != Some(service.state)
            && matches!(service.state, State::Ready | State::Restarting | State::Failed | State::Blocked)
        {
            progress(&format!("{} {}", service.name, service.state));
        }
    }
    let troubles: BTreeSet<_> = status.troubles().into_iter().collect();
    for trouble in troubles.difference(&said.troubles) {
        say(&text::problem(trouble));
    }
    said.troubles = troubles;
}
