//! What the supervisor holds, and the acts of its phases.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tokio::time::{Instant, sleep};

use super::configuration::{self, Effective};
use super::{
    RUN, button, clock, control, crash, credentials, devices, heart, identity, keyboard, log, pid1, room,
    screen, seed, settings, status,
};
use crate::board::Board;
use crate::cgroup::Group;
use crate::console::{Level, alarm, kmsg};
use crate::net;
use crate::power::Ending;
use crate::request::SOCKET;
use crate::service::{self, JOURNALD, Place, Reaped, Runner, SERVICES, Store};
use crate::storage::{self, Data};

/// When functions are killed at the latest, from the moment that the gateway is told to end: it lets calls end first, and
/// what is left of this is the functions' own between SIGTERM and the kill.
const FUNCTIONS_LIMIT: Duration = Duration::from_secs(5);
/// What they have in any case.
const FUNCTION_GRACE: Duration = Duration::from_millis(1500);
/// Longest wait for a killed group to be empty.
const KILL_LIMIT: Duration = Duration::from_secs(2);
/// How long a nameless machine waits for its card to name itself after.
const CARD_LIMIT: Duration = Duration::from_secs(3);

/// Where the runtime keeps what it knows of containers: NAMESPACE/ID.
const CONTAINERS: &str = "/run/containerd/runc";

/// Whether a function's process waits to begin. Namespace and identifier are those of its group.
fn has_not_begun(function: &Group) -> bool {
    let mut names = function.path().components().rev();
    let (id, namespace) = (names.next(), names.next());
    let (Some(id), Some(namespace)) = (id, namespace) else { return false };
    Path::new(CONTAINERS).join(namespace).join(id).join("exec.fifo").exists()
}

/// A service that was started.
struct Started {
    name: &'static str,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// The supervisor's state.
pub(super) struct Machine {
    pub(super) board: Board,
    reaped: Reaped,
    started: RefCell<Vec<Started>>,
    store: Store,
    pid1: Option<pid1::Link>,
    ending: watch::Sender<Option<Ending>>,
    devices: devices::Watch,
    effective: Rc<RefCell<Option<Effective>>>,
    /// Password that this device made itself, for the console.
    password: Rc<RefCell<Option<(String, String)>>>,
    on_disk: Rc<Cell<bool>>,
    /// When functions are killed.
    functions_end: Cell<Option<Instant>>,
}

impl Machine {
    pub(super) fn new() -> Self {
        let pid1 = pid1::Link::take();
        let store = pid1
            .clone()
            .map_or_else(Store::default, |link| Store::telling(move |packet, fd| link.post(packet, fd)));
        Self {
            board: Board::new(),
            reaped: Reaped::default(),
            started: RefCell::default(),
            store,
            pid1,
            ending: watch::Sender::new(None),
            devices: devices::Watch::new(),
            effective: Rc::default(),
            password: Rc::default(),
            on_disk: Rc::default(),
            functions_end: Cell::default(),
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.borrow().is_some()
    }

    pub(super) async fn wait_for_end(&self) -> Ending {
        let mut wish = self.ending.subscribe();
        loop {
            if let Some(ending) = *wish.borrow_and_update() {
                return ending;
            }
            // The sender is ours.
            let _ = wish.changed().await;
        }
    }

    pub(super) async fn clock_floor(&self) {
        if let Err(error) = clock::raise() {
            alarm(&error.to_string());
        }
    }

    pub(super) async fn settings(&self) {
        let left = settings::apply(Path::new("/usr/lib/sysctl.d"), Path::new("/proc/sys"));
        for error in left.errors {
            alarm(&error.to_string());
        }
        if !left.unknown.is_empty() {
            kmsg(
                Level::Info,
                &format!("settings that this kernel does not have: {}", left.unknown.join(", ")),
            );
        }
    }

    /// What an earlier supervisor kept, then sockets that nobody kept and nobody serves.
    pub(super) async fn sockets(&self) {
        log::start();
        if let Some(link) = &self.pid1 {
            self.store.restore(link.fetch().await);
        }
        for service in SERVICES.iter().filter(|service| !service::is_adoptable(&place().run, service.name)) {
            // It is tried again when the service starts, and is that one's failure then.
            if let Err(error) = self.store.bind(service.name, service.sockets) {
                tracing::error!("{}: {error}", service.name);
            }
        }
    }

    pub(super) async fn controls(&self) {
        if let Some(link) = &self.pid1 {
            spawn_local(link.clone().listen(self.reaped.clone(), self.ending.clone()));
            spawn_local(heart::beat(link.clone(), self.on_disk.clone(), self.board.clone()));
        }
        let desk = control::Desk {
            board: self.board.clone(),
            wish: self.ending.clone(),
            effective: self.effective.clone(),
            made: self.password.clone(),
        };
        spawn_local(control::serve(PathBuf::from(SOCKET), desk));
        spawn_local(control::on_sigterm(self.ending.clone()));
        spawn_local(button::watch(self.devices.inputs(), self.ending.clone()));
        spawn_local(screen::show(self.board.clone(), self.password.clone()));
        spawn_local(keyboard::answer(self.board.clone(), self.password.clone()));
        spawn_local(status::write(self.board.clone()));
        spawn_local(clock::keep(Path::new(clock::SAVED)));
        spawn_local(room::watch(self.on_disk.clone(), self.board.clone()));
    }

    pub(super) async fn devices(&self) {
        self.devices.start();
    }

    pub(super) async fn network(&self) {
        let (board, looked) = (self.board.clone(), self.devices.looked());
        spawn_local(async move {
            loop {
                // The next good look takes it back.
                if let Err(error) = net::run(board.clone(), looked.clone()).await {
                    board.problem("network", Some(error.to_string()));
                }
                sleep(Duration::from_secs(5)).await;
            }
        });
    }

    pub(super) async fn storage(&self) {
        let disk = storage::boot_disk().unwrap_or_default();
        self.board.change(|status| status.boot_disk = disk);
        let data = spawn_blocking(storage::mount_data).await;
        match data.unwrap_or_else(|error| Data::Memory(error.to_string())) {
            Data::Disk(part) => {
                self.on_disk.set(true);
                self.board.change(|status| status.data = part);
                self.board.problem("data", storage::damage());
            }
            Data::Memory(why) => {
                self.board.change(|status| status.data = "memory".to_owned());
                let text = format!("data is in memory and lost at the next start: {why}");
                self.board.problem("data", Some(text));
            }
        }
        if let Err(error) = clock::raise() {
            alarm(&error.to_string());
        }
    }

    /// What the last run left on the disk, or in what outlives a crash. Nothing waits for it.
    pub(super) async fn leftovers(&self) {
        if !self.on_disk.get() {
            return;
        }
        let board = self.board.clone();
        spawn_local(async move {
            let seed = spawn_blocking(|| seed::take(Path::new(seed::KEPT), &mut seed::Kernel)).await;
            match seed {
                Ok(Ok(true)) => tracing::info!("the random seed of the last run is used and replaced"),
                Ok(Ok(false)) => tracing::info!("there was no random seed; one is left for the next start"),
                Ok(Err(error)) => board.problem("random seed", Some(error.to_string())),
                Err(error) => board.problem("random seed", Some(error.to_string())),
            }
            match spawn_blocking(crash::look).await {
                Ok(Ok(Some(notice))) => board.problem("crash", Some(notice)),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    board.problem("crash", Some(format!("keep the kernel's last words: {error}")))
                }
                Err(error) => board.problem("crash", Some(error.to_string())),
            }
        });
    }

    pub(super) async fn leave_seed(&self) {
        if !self.on_disk.get() {
            return;
        }
        if let Err(error) = seed::leave(Path::new(seed::KEPT), &mut seed::Kernel) {
            alarm(&error.to_string());
        }
    }

    pub(super) async fn configuration(&self) {
        let boot = spawn_blocking(storage::mount_boot).await;
        let boot =
            boot.map_err(|error| error.to_string()).and_then(|done| done.map_err(|error| error.to_string()));
        let effective = configuration::choose(boot, Path::new(configuration::LAST_GOOD));
        self.board.change(|status| status.config = effective.source.to_owned());
        self.board.problem("configuration", effective.problem.clone());
        if let Err(error) =
            configuration::publish(&effective, Path::new(RUN), Path::new(configuration::LAST_GOOD))
        {
            self.board.problem("configuration file", Some(error.to_string()));
        }
        match credentials::publish(&effective.config.gateway, Path::new(credentials::KEPT), Path::new(RUN)) {
            Ok(made) => {
                *self.password.borrow_mut() = made.map(|made| (effective.config.gateway.user.clone(), made))
            }
            Err(error) => self.board.problem("credentials", Some(error.to_string())),
        }
        *self.effective.borrow_mut() = Some(effective);
    }

    pub(super) async fn identity(&self) {
        let id = match identity::machine_id(
            Path::new("/var/lib/bothy/machine-id"),
            Path::new("/etc/machine-id"),
        ) {
            Ok(id) => id,
            Err(error) => {
                self.board.problem("machine-id", Some(error.to_string()));
                String::new()
            }
        };
        let configured = self.effective.borrow().as_ref().and_then(|e| e.config.hostname.clone());
        let name = match configured {
            Some(name) => name.to_string(),
            None => {
                let class = Path::new("/sys/class/net");
                if net::first_mac(class).is_none() {
                    let mut looked = self.devices.looked();
                    let _ = tokio::time::timeout(CARD_LIMIT, looked.wait_for(|looked| *looked)).await;
                }
                identity::own_name(net::first_mac(class), &id)
            }
        };
        if let Err(error) = identity::set_hostname(&name) {
            self.board.problem("hostname", Some(error.to_string()));
        }
        self.board.change(|status| status.hostname = name);
    }

    /// Starts services by name.
    pub(super) async fn start(&self, names: &[&str]) {
        // In the board in their order, so that "all ready" never means "all that were started so far".
        for declaration in &SERVICES {
            self.board.service(declaration.name, |_| {});
        }
        if names.contains(&JOURNALD) && self.on_disk.get() {
            // journald then goes to /var at once: there is nothing in /run to be flushed.
            let _ = std::fs::write(place().journal.join("flushed"), "");
        }
        for declaration in SERVICES.into_iter().filter(|service| names.contains(&service.name)) {
            let name = declaration.name;
            let (board, reaped) = (self.board.clone(), self.reaped.clone());
            let store = self.store.clone();
            let runner = Runner { declaration, place: place(), board, reaped, store };
            let (stop, asked) = watch::channel(false);
            self.started.borrow_mut().push(Started { name, stop, task: spawn_local(runner.run(asked)) });
        }
    }

    /// Stops a service and waits for its end; each has its own limit.
    pub(super) async fn stop(&self, name: &str) {
        let found = {
            let mut started = self.started.borrow_mut();
            let at = started.iter().position(|service| service.name == name);
            at.map(|at| started.swap_remove(at))
        };
        if let Some(service) = found {
            service.stop.send_replace(true);
            let _ = service.task.await;
        }
    }

    /// From now on the functions' time runs.
    pub(super) async fn stop_gateway(&self) {
        self.functions_end.set(Some(Instant::now() + FUNCTIONS_LIMIT));
        self.stop("gateway").await;
    }

    /// Ends all functions: their init processes get a word, then the groups are killed.
    pub(super) async fn stop_functions(&self) {
        let spaces = Group::at("workload").children().into_iter().filter(|group| group.name() != "shims");
        let functions: Vec<_> = spaces.flat_map(|space| space.children()).collect();
        for function in &functions {
            // What stands still hears nothing, and what has not begun has nothing to end.
            let _ = function.set("cgroup.freeze", "0");
            if has_not_begun(function) {
                function.kill();
            }
            for pid in function.processes().into_iter().filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let least = Instant::now() + FUNCTION_GRACE;
        let end = self.functions_end.get().map_or(least, |end| end.max(least));
        while functions.iter().any(Group::is_populated) && Instant::now() < end {
            sleep(Duration::from_millis(10)).await;
        }
        for function in &functions {
            function.kill();
        }
        let empty =
            spawn_blocking(move || functions.iter().all(|function| function.kill_and_wait(KILL_LIMIT)));
        let _ = empty.await;
    }

    pub(super) async fn stop_shims(&self) {
        for group in ["workload/shims", "system/containerd"] {
            let _ = spawn_blocking(move || Group::at(group).kill_and_wait(KILL_LIMIT)).await;
        }
    }

    pub(super) async fn save_clock(&self) {
        // Elsewhere than on a disk it would be lost, or /var is not there yet.
        if !self.on_disk.get() {
            return;
        }
        if let Err(error) = clock::save(Path::new(clock::SAVED)) {
            alarm(&error.to_string());
        }
    }

    /// SIGRTMIN+1 makes journald write everything and say so by a file (systemd-journald(8)); then it ends.
    pub(super) async fn stop_journal(&self) {
        const LIMIT: Duration = Duration::from_secs(1);
        let service = self.board.status().services.into_iter().find(|service| service.name == JOURNALD);
        if let Some(pid) = service.and_then(|service| service.pid) {
            let synced = place().journal.join("synced");
            let _ = std::fs::remove_file(&synced);
            // SAFETY: plain call without pointers.
            unsafe { libc::kill(pid, libc::SIGRTMIN() + 1) };
            let end = Instant::now() + LIMIT;
            while !synced.exists() && Instant::now() < end {
                sleep(Duration::from_millis(10)).await;
            }
        }
        self.stop(JOURNALD).await;
    }

    pub(super) fn tell_stopping(&self, ending: Ending) {
        if let Some(link) = &self.pid1 {
            link.stopping(ending);
        }
    }

    /// Hands over. The process ends then, which is the sooner the better: PID 1 waits for every process before it
    /// unmounts. Without a PID 1 of ours (a distribution's init runs us) that end is all.
    pub(super) fn tell_end(&self, ending: Ending) {
        if let Some(link) = &self.pid1 {
            link.end(ending);
        }
    }
}

fn place() -> Place {
    Place { run: PathBuf::from(RUN), groups: Some("system"), journal: PathBuf::from("/run/systemd/journal") }
}
