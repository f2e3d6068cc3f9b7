//! `bothy run`: from nothing to a function that answers, and then a machine to play with.
//!
//! The order of things is this file; what is kept between runs is [`kept`], Ctrl-C is [`interrupt`], the console at
//! the end is [`attach`].

mod attach;
mod interrupt;
mod kept;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use interrupt::Interrupt;
use kept::Kept;

use crate::build;
use crate::progress::step;
use crate::qemu::{
    Accel, Appliance, Error, Gateway, Mark, READY, Result, Retries, Running, SAMPLE_FUNCTION, SAMPLE_IMAGE,
};
use crate::{Artifacts, host, place};

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The image.
    pub build: build::Options,
    /// Whether to forget the disk of earlier runs.
    pub fresh: bool,
    /// Whether to power off after the function's answer.
    pub once: bool,
    /// Whether to boot through UEFI firmware.
    pub firmware: bool,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// The port of 127.0.0.1 for the gateway; any free one unless given.
    pub port: Option<u16>,
    /// The file for the console, if not the one in the machine's folder.
    pub console: Option<PathBuf>,
}

/// What the sample function is asked to write.
const WORD: &str = "Bothy";

/// How long the gateway and the function may take once the machine is ready.
const ANSWER: Duration = Duration::from_secs(120);

/// How long a machine may take to power off before its plug is pulled.
const POWER_OFF: Duration = Duration::from_secs(30);

/// How often somebody who waits is told that something still goes on.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Builds, boots, deploys, calls; then stays until Ctrl-C or, with `once`, powers off.
///
/// # Errors
/// Any step; the message has the end of the console and where the rest is.
pub fn run(options: &Options) -> Result<()> {
    let began = Instant::now();
    host::ensure(&[host::BUILD, host::BOOT].concat(), options.build.install)?;
    let artifacts = build::ensure(&options.build)?;
    let kept =
        Kept::open(&place::target(&options.build.source).join("bothy/run"), &artifacts, options.fresh)?;
    let accel = Accel::probe(&options.build.cache)?;
    // From here on Ctrl-C has something to end in good order.
    let interrupt = Interrupt::take()?;
    let console = options.console.clone().unwrap_or_else(|| kept.folder().join("console.log"));
    let appliance = Appliance { artifacts: &artifacts, accel, firmware: options.firmware };
    let mut retries = Retries::default();
    let outcome = retries.run(|| boot(options, &appliance, &kept, &interrupt));
    let (mut running, answer) = match outcome {
        Ok(booted) => booted,
        Err(Error::Interrupted) => {
            eprintln!("bothy: interrupted; the disk is kept for the next run");
            return Ok(());
        }
        Err(error) => {
            eprintln!("bothy: the whole console is in {}", console.display());
            eprintln!("bothy: `bothy run --fresh` starts over with a fresh disk");
            return Err(error);
        }
    };
    eprintln!("bothy: answered {:.1} s after the command", began.elapsed().as_secs_f64());
    report(&running, &kept, &artifacts, &answer);
    if options.once {
        return power_off(&mut running, &interrupt);
    }
    eprintln!("\nThis is the machine's console. Ctrl-C powers it off.");
    let ended = attach::stay(&mut running, &interrupt)?;
    if ended {
        eprintln!("\nbothy: the machine has powered itself off");
        return Ok(());
    }
    power_off(&mut running, &interrupt)
}

/// Starts the machine and brings the sample function to an answer.
fn boot(
    options: &Options,
    appliance: &Appliance<'_>,
    kept: &Kept,
    interrupt: &Interrupt,
) -> Result<(Running, String)> {
    let mut machine = appliance.machine(kept.folder(), kept.disk())?;
    machine.memory_mib = options.memory_mib;
    machine.port = options.port;
    machine.console = options.console.clone();
    let way = if appliance.firmware { "through UEFI firmware" } else { "directly" };
    let boot = step(format!("boot {way}, with {}", appliance.accel));
    let mut running = machine.start()?;
    eprintln!("bothy: the console goes to {}", running.console().log().display());
    wait_ready(&mut running, appliance.boot_limit(), interrupt)?;
    drop(boot);
    let gateway = kept.gateway(&running);
    {
        let _step = step("wait for the gateway");
        let ask = || interrupt.check().and_then(|()| gateway.health());
        running.answer("the gateway to be healthy", ANSWER, ask, |answer| answer.status == 200)?;
    }
    if !gateway.has(SAMPLE_FUNCTION)? {
        let _step = step(format!("deploy {SAMPLE_FUNCTION}"));
        gateway.deploy(SAMPLE_FUNCTION, SAMPLE_IMAGE)?;
    }
    let _step = step(format!("call {SAMPLE_FUNCTION}"));
    let ask = || interrupt.check().and_then(|()| gateway.call(SAMPLE_FUNCTION, WORD));
    let (answer, at) = running.answer("the function's answer", ANSWER, ask, |answer| answer.status == 200)?;
    eprintln!("bothy: the function answered {:.1} s after the machine was switched on", at.as_secs_f64());
    Ok((running, answer.body))
}

/// Waits until the machine says that it is ready, and tells every few seconds what it does.
fn wait_ready(running: &mut Running, limit: Duration, interrupt: &Interrupt) -> Result<()> {
    let began = Instant::now();
    let mut told = began;
    loop {
        match running.wait_for(READY, Duration::from_millis(250)) {
            Ok(line) => {
                // It begins with our name already.
                eprintln!("{}", line.text.trim());
                return Ok(());
            }
            Err(Error::Late { tail, .. }) => {
                interrupt.check()?;
                running.check()?;
                let waited = began.elapsed();
                if waited >= limit {
                    return Err(Error::Late { what: format!("`{READY}` on the console"), waited, tail });
                }
                if told.elapsed() >= SIGN_OF_LIFE {
                    told = Instant::now();
                    let lines = running.console().lines(Mark::default());
                    let last = lines.iter().rev().map(|line| line.text.trim()).find(|text| !text.is_empty());
                    eprintln!(
                        "bothy: {:3.0} s  {}",
                        waited.as_secs_f64(),
                        last.unwrap_or("(nothing on the console)")
                    );
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// What the user wants to know, on standard output.
fn report(running: &Running, kept: &Kept, artifacts: &Artifacts, answer: &str) {
    let client = running.client();
    let url = client.base();
    let (user, password) = kept.credentials();
    println!("\n{}\n", answer.trim_end());
    println!(
        "That was the function {SAMPLE_FUNCTION}, in a machine that booted {}.",
        artifacts.image.display()
    );
    println!();
    println!("URL       {url}");
    println!("User      {user}");
    println!("Password  {password}");
    println!("Call      curl -d hello {url}/function/{SAMPLE_FUNCTION}");
    println!("List      curl -u {user}:{password} {url}/system/functions");
    println!("Console   {}", running.console().log().display());
    println!("Disk      {} (kept; `bothy run --fresh` starts over)", kept.disk().path().display());
}

/// Powers the machine off as its button would; pulls the plug when that takes too long or the user insists.
fn power_off(running: &mut Running, interrupt: &Interrupt) -> Result<()> {
    let _step = step("power off");
    let insisted = interrupt.count();
    running.monitor().powerdown()?;
    let began = Instant::now();
    loop {
        match running.wait_end(Duration::from_millis(250)) {
            Ok(_) => return Ok(()),
            Err(Error::Late { tail, .. }) => {
                let waited = began.elapsed();
                if interrupt.count() > insisted {
                    eprintln!("bothy: pulling the plug");
                    return Ok(());
                }
                if waited >= POWER_OFF {
                    return Err(Error::Late { what: "the machine to power off".to_owned(), waited, tail });
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// The gateway with this machine's credentials.
impl Kept {
    fn gateway(&self, running: &Running) -> Gateway {
        let (user, password) = self.credentials();
        Gateway::new(running.client().with_credentials(user, password))
    }
}
