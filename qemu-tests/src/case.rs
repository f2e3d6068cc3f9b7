//! One test: its folder, its machines, its timings, and what to do when the emulator fails.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use image::Artifacts;
use image::qemu::{Accel, Answer, Appliance, Disk, Error, Fault, Gateway, Machine, Running, configuration};

use crate::{lock, used};

/// The gateway's password on disks whose `bothy.toml` the harness wrote.
pub const PASSWORD: &str = "a-password-for-tests";

/// The image of a function that runs its input with a shell; only in the image of [`shell_case`].
pub const SHELL_IMAGE: &str = "localhost/shell:latest";

/// How often a test runs when the emulator fails each time.
const ATTEMPTS: usize = 3;

/// How long a function may take to answer once the machine is ready.
const ANSWER: Duration = Duration::from_secs(120);

/// How soon a machine must be off after its power button was pressed.
pub const POWER_OFF: Duration = Duration::from_secs(10);

/// A test while it runs.
pub struct Case {
    /// Folder for disks and consoles.
    folder: PathBuf,
    artifacts: Artifacts,
    accel: Accel,
    /// Boot through UEFI firmware.
    pub firmware: bool,
    boots: usize,
    timings: Vec<(String, Duration)>,
}

/// Runs a test, again if the emulator failed. Panics when it fails, with the cause and where the consoles are.
pub fn case(name: &str, body: impl FnMut(&mut Case) -> Result<()>) {
    run(name, "BOTHY_ARTIFACTS", body);
}

/// The same with the image that has one function more, [`SHELL_IMAGE`]: it runs what it is sent.
pub fn shell_case(name: &str, body: impl FnMut(&mut Case) -> Result<()>) {
    run(name, "BOTHY_SHELL_ARTIFACTS", body);
}

fn run(name: &str, variable: &str, mut body: impl FnMut(&mut Case) -> Result<()>) {
    let began = Instant::now();
    let (folder, artifacts, accel) = match prepare(name, variable) {
        Ok(prepared) => prepared,
        Err(error) => panic!("{name}: {error:#}"),
    };
    let _folder = lock::folder(&folder).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    let _processor = lock::processor().unwrap_or_else(|error| panic!("{name}: {error:#}"));
    let waited = began.elapsed();
    for attempt in 1.. {
        // Disks and consoles of an earlier run must not be taken for this one's.
        let cleared = fs::remove_dir_all(&folder);
        drop(cleared);
        let mut case = Case {
            folder: folder.clone(),
            artifacts: artifacts.clone(),
            accel,
            firmware: false,
            boots: 0,
            timings: Vec::new(),
        };
        let outcome = fs::create_dir_all(&folder).map_err(Into::into).and_then(|()| body(&mut case));
        println!("{name} ({accel}; waited {:.1} s for other machines)", waited.as_secs_f64());
        for (what, took) in &case.timings {
            println!("  {:7.2} s  {what}", took.as_secs_f64());
        }
        let Err(error) = outcome else {
            // The consoles stay, the disks are large.
            remove_disks(&folder);
            return;
        };
        match fault(&error) {
            Some(fault) if attempt < ATTEMPTS => {
                println!("{name}: emulator fault in attempt {attempt}, once more: {fault}");
                count(name, fault);
            }
            _ => panic!("{name}: {error:#}\nconsoles and disks are in {}", folder.display()),
        }
    }
}

fn prepare(name: &str, variable: &str) -> Result<(PathBuf, Artifacts, Accel)> {
    let path = std::env::var_os(variable).map(PathBuf::from).with_context(|| {
        format!(
            "{variable} is not set: run this through `cargo bothy test {name}`, which builds the image first"
        )
    })?;
    let out = path.parent().with_context(|| format!("{variable} is no path of a file"))?;
    let artifacts = Artifacts::load(out).with_context(|| format!("read {}", path.display()))?;
    let cache = std::env::var_os("BOTHY_CACHE").map_or_else(|| out.join("cache"), PathBuf::from);
    Ok((out.join("tests").join(name), artifacts, Accel::probe(&cache)?))
}

fn fault(error: &anyhow::Error) -> Option<Fault> {
    error.chain().find_map(|cause| cause.downcast_ref::<Error>()?.fault())
}

/// Notes a fault for the summary of `bothy test`.
fn count(name: &str, fault: Fault) {
    if let Some(path) = std::env::var_os("BOTHY_FAULTS") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let noted = file.and_then(|mut file| writeln!(file, "{name}: {fault}"));
        if let Err(error) = noted {
            println!("{name}: could not note the fault: {error}");
        }
    }
}

fn remove_disks(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "img"))
    {
        let _ = fs::remove_file(path);
    }
}

impl Case {
    /// Runs a part of the test, again if the emulator failed in it: of many boots one may, and the others count.
    ///
    /// # Errors
    /// The part's own.
    pub fn retry<T>(&mut self, mut part: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        for _ in 1..ATTEMPTS {
            match part(self) {
                Err(error) => match fault(&error) {
                    Some(fault) => count(&self.folder.to_string_lossy(), fault),
                    None => return Err(error),
                },
                done => return done,
            }
        }
        part(self)
    }

    /// The image under test.
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// The test's own folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A fresh disk with a `bothy.toml`; the gateway's user is `admin`, its password [`PASSWORD`], unless the text
    /// says otherwise.
    ///
    /// # Errors
    /// The disk cannot be written.
    pub fn disk(&self, bothy_toml: Option<&str>) -> Result<Disk> {
        let disk = Disk::create(&self.artifacts.image, &self.folder.join("disk.img"))?;
        let default = configuration("admin", PASSWORD);
        disk.write_boot_file("bothy.toml", bothy_toml.unwrap_or(&default).as_bytes())?;
        Ok(disk)
    }

    /// The disk of a machine that has run before: [`crate::SAMPLE_FUNCTION`] is deployed and its image unpacked. For tests
    /// that are not about a first boot, which takes longer.
    ///
    /// # Errors
    /// Such a machine did not do what it should.
    pub fn used_disk(&mut self) -> Result<Disk> {
        let folder = self.folder.clone();
        let shelf = folder.with_file_name(format!("used-{}", self.artifacts.name));
        used::copy(self, &shelf, &folder.join("disk.img"))
    }

    /// A machine of the usual size with that disk; change it, then [`Case::boot`] it.
    ///
    /// # Errors
    /// There is no firmware, though it is wanted.
    pub fn machine(&mut self, disk: &Disk) -> Result<Machine> {
        let mut machine = self.appliance().machine(&self.folder, disk)?;
        self.boots += 1;
        machine.console = Some(self.folder.join(format!("console-{}.log", self.boots)));
        Ok(machine)
    }

    fn appliance(&self) -> Appliance<'_> {
        Appliance { artifacts: &self.artifacts, accel: self.accel, firmware: self.firmware }
    }

    /// Starts a machine and waits until it says that it is ready.
    ///
    /// # Errors
    /// It did not come up in time.
    pub fn boot(&mut self, machine: &Machine) -> Result<Running> {
        let mut running = machine.start()?;
        running.log_in_as("admin", PASSWORD);
        let line = running.ready(self.appliance().boot_limit())?;
        let boot = self.boots;
        self.time(format!("boot {boot}: ready"), line.at);
        Ok(running)
    }

    /// Switches a machine with that disk on, with nothing special about it.
    ///
    /// # Errors
    /// It did not come up in time.
    pub fn up(&mut self, disk: &Disk) -> Result<Running> {
        let machine = self.machine(disk)?;
        self.boot(&machine)
    }

    /// The gateway, with the credentials that the harness put on the disk.
    pub fn gateway(&self, running: &Running) -> Gateway {
        Gateway::new(running.client().with_credentials("admin", PASSWORD))
    }

    /// Waits until a function answers with 200; gives the body.
    ///
    /// # Errors
    /// It did not in time.
    pub fn answer(&mut self, running: &mut Running, function: &str, body: &str) -> Result<String> {
        let gateway = self.gateway(running);
        let what = format!("boot {}: {function} answers", self.boots);
        let (answer, at) =
            running.answer(&what, ANSWER, || gateway.call(function, body), |answer| answer.status == 200)?;
        self.time(what, at);
        Ok(answer.body)
    }

    /// Waits until the gateway answers a path with a status.
    ///
    /// # Errors
    /// It did not in time.
    pub fn status(&mut self, running: &mut Running, path: &str, status: u16) -> Result<Answer> {
        let gateway = self.gateway(running);
        let what = format!("boot {}: {path} is {status}", self.boots);
        let ask = || gateway.client().get(path, Duration::from_secs(30));
        let (answer, at) = running.answer(&what, ANSWER, ask, |answer| answer.status == status)?;
        self.time(what, at);
        Ok(answer)
    }

    /// Presses the power button; the machine must be off in ten seconds.
    ///
    /// # Errors
    /// It was not.
    pub fn power_off(&mut self, mut running: Running) -> Result<()> {
        // Waits longer than it may take, so that a failure tells how much too long it was.
        let took = running.power_off(POWER_OFF * 6)?;
        let boot = self.boots;
        self.time(format!("boot {boot}: power off"), took);
        if took > POWER_OFF {
            bail!("power off took {:.1} s, at most {} are allowed", took.as_secs_f64(), POWER_OFF.as_secs());
        }
        Ok(())
    }

    /// Notes how long something took.
    pub fn time(&mut self, what: String, took: Duration) {
        self.timings.push((what, took));
    }
}
