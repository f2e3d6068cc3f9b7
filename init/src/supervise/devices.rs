//! Devices without udev: modules for what is there, then for what comes. A thread, because loading a module waits.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;

use crate::console::{Level, kmsg};
use crate::modules::{self, Index};
use crate::uevent::{self, Listener};

/// The thread's voice.
#[derive(Debug)]
pub(super) struct Watch {
    looked: watch::Sender<bool>,
    inputs: watch::Sender<u64>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { looked: watch::Sender::new(false), inputs: watch::Sender::new(0) }
    }

    /// Turns true when everything that was there has its modules.
    pub(super) fn looked(&self) -> watch::Receiver<bool> {
        self.looked.subscribe()
    }

    /// Changes when an input device comes or goes.
    pub(super) fn inputs(&self) -> watch::Receiver<u64> {
        self.inputs.subscribe()
    }

    /// Starts the thread. Without one the machine has no hotplug, and what waits for it goes on.
    pub(super) fn start(&self) {
        let (looked, inputs) = (self.looked.clone(), self.inputs.clone());
        let thread =
            std::thread::Builder::new().name("devices".to_owned()).spawn(move || follow(&looked, &inputs));
        if let Err(error) = thread {
            tracing::error!("no thread for devices: {error}");
            self.looked.send_replace(true);
        }
    }
}

fn follow(looked: &watch::Sender<bool>, inputs: &watch::Sender<u64>) {
    let index = Index::of_kernel();
    // First listen, then look: nothing falls in between.
    let listener = Listener::open().inspect_err(|error| kmsg(Level::Error, &error.to_string())).ok();
    let mut asked = BTreeSet::new();
    modules::load_listed(&index, Path::new("/usr/lib/modules-load.d"));
    modules::load_for(&index, uevent::modaliases(Path::new("/sys/devices")), &mut asked);
    // Buses that these drivers brought have announced their devices by now.
    if let Some(listener) = &listener {
        take(listener, Duration::ZERO, &index, &mut asked, inputs);
    }
    inputs.send_modify(|count| *count += 1);
    looked.send_replace(true);
    let Some(listener) = listener else { return };
    loop {
        take(&listener, Duration::from_secs(3600), &index, &mut asked, inputs);
    }
}

fn take(
    listener: &Listener,
    limit: Duration,
    index: &Index,
    asked: &mut BTreeSet<String>,
    inputs: &watch::Sender<u64>,
) {
    let (events, lost) = listener.wait(limit);
    if lost || events.iter().any(|event| event.subsystem == "input") {
        inputs.send_modify(|count| *count += 1);
    }
    if lost {
        modules::load_for(index, uevent::modaliases(Path::new("/sys/devices")), asked);
    }
    let added = events.into_iter().filter(|event| event.action == "add");
    modules::load_for(index, added.filter_map(|event| event.modalias), asked);
}
