//! The network comes late, its DHCP server goes away, its cable is pulled and put in elsewhere: the machine says so,
//! keeps what is its own as long as it is, and takes what the network gives, without hands.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_tests::lan::{Asked, Lan, Offer};
use qemu_tests::{BOTHY, Case, Running, SAMPLE_FUNCTION, case};

/// How long a machine may take to see what happened to its network, on a busy host.
const SEEN: Duration = Duration::from_secs(20);
/// How often a machine asks at least when nobody answers, and as much again for a busy host.
const ASKS_AGAIN: Duration = Duration::from_secs(40);

const FIRST: [u8; 4] = [10, 77, 0, 50];

/// A machine and its network.
struct Lab<'a> {
    case: &'a mut Case,
    lan: Lan,
    running: Running,
}

impl Lab<'_> {
    /// Does something, and waits for what the console says about the network from then on.
    fn says(&mut self, text: &str, limit: Duration, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let mark = self.running.console().mark();
        let began = Instant::now();
        act(self)?;
        // The card with the wire is the first one; a second one, for the calls, is always there.
        let pattern = format!("^bothy: .*network: {}, eth1 has 10\\.0\\.2\\.15$", text.replace('.', "\\."));
        self.running.console().wait(&pattern, mark, limit)?;
        self.case.time(format!("network: {text}"), began.elapsed());
        Ok(())
    }

    fn cable(&mut self, up: bool) -> Result<()> {
        Ok(self.running.monitor().set_link("wire", up)?)
    }

    /// The address is on the machine, and is the one that it shows.
    fn is_at(&self, address: [u8; 4]) -> Result<()> {
        ensure!(self.lan.has(address.into()), "nobody answers to {}", Ipv4Addr::from(address));
        Ok(())
    }

    fn function_answers(&mut self) -> Result<()> {
        let answer = self.case.answer(&mut self.running, SAMPLE_FUNCTION, "Bothy")?;
        ensure!(answer == BOTHY, "figlet wrote:\n{answer}");
        Ok(())
    }
}

#[test]
fn comes_and_goes() {
    case("network", |case| {
        let disk = case.used_disk()?;
        let lan = Lan::new(Offer::new(FIRST))?;
        let mut machine = case.machine(&disk)?;
        machine.wire = Some(lan.wire());
        let mut running = machine.start()?;
        running.monitor().set_link("wire", false)?;
        running.ready(Duration::from_secs(180))?;
        let mut lab = Lab { case, lan, running };
        late(&mut lab)?;
        without_server(&mut lab)?;
        pulled(&mut lab)?;
        elsewhere(&mut lab)?;
        let Lab { case, running, .. } = lab;
        case.power_off(running)
    });
}

/// A cable that is put in after the start, and a server that is switched on after the cable.
fn late(lab: &mut Lab<'_>) -> Result<()> {
    lab.says("eth0 asks for an address, no dhcp server answers", ASKS_AGAIN * 2, |lab| {
        lab.cable(true)?;
        lab.function_answers()
    })?;
    let mark = lab.running.console().mark();
    lab.says("eth0 has 10.77.0.50", ASKS_AGAIN, |lab| {
        lab.lan.serve(Offer { renew: 5, lease: 30, ..Offer::new(FIRST) });
        Ok(())
    })?;
    lab.is_at(FIRST)?;
    let shown = "^bothy: ready: .* 10\\.77\\.0\\.50 http://10\\.77\\.0\\.50:8080$";
    lab.running.console().wait(shown, mark, SEEN).context("the console shows another address")?;
    // It is asked for again when it is time.
    lab.lan.asked();
    let began = Instant::now();
    while !lab.lan.asked().contains(&Asked::For(FIRST.into())) {
        ensure!(began.elapsed() < SEEN, "no renewal after {:.1} s", began.elapsed().as_secs_f64());
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The server is gone for longer than the lease of half a minute.
fn without_server(lab: &mut Lab<'_>) -> Result<()> {
    // After five seconds it is asked, for a quarter of a minute.
    lab.says("eth0 has 10.77.0.50, no dhcp server answers", SEEN * 2, |lab| {
        lab.lan.silence();
        Ok(())
    })?;
    lab.is_at(FIRST)?;
    lab.says("eth0 asks for an address, no dhcp server answers", SEEN * 2, |_| Ok(()))?;
    ensure!(!lab.lan.has(FIRST.into()), "the lease is over, and the address is still there");
    lab.function_answers()?;
    lab.says("eth0 has 10.77.0.50", ASKS_AGAIN, |lab| {
        lab.lan.serve(Offer::new(FIRST));
        Ok(())
    })?;
    lab.is_at(FIRST)
}

/// The cable is pulled and put in again.
fn pulled(lab: &mut Lab<'_>) -> Result<()> {
    lab.says("eth0 has no cable, keeps 10.77.0.50", SEEN, |lab| lab.cable(false))?;
    lab.function_answers()?;
    lab.lan.asked();
    lab.says("eth0 has 10.77.0.50", SEEN, |lab| lab.cable(true))?;
    lab.is_at(FIRST)?;
    // Whether it may still have it, it asks soon; for any other it does not.
    let began = Instant::now();
    let mut asked = Vec::new();
    while asked.is_empty() {
        ensure!(began.elapsed() < SEEN, "the network was not asked whether the address is still right");
        std::thread::sleep(Duration::from_millis(100));
        asked.extend(lab.lan.asked());
    }
    ensure!(asked.iter().all(|asked| *asked == Asked::For(FIRST.into())), "it asked for {asked:?}");
    Ok(())
}

/// The cable is put in elsewhere, and then the network changes behind it.
fn elsewhere(lab: &mut Lab<'_>) -> Result<()> {
    // A server that refuses, one that keeps silent about what it does not know, and a change without a pulled cable.
    let (second, third, fourth) = ([10, 88, 0, 7], [10, 99, 0, 9], [10, 66, 0, 3]);
    for (before, after, refuses) in [(FIRST, second, true), (second, third, false)] {
        let text = format!("eth0 has no cable, keeps {}", Ipv4Addr::from(before));
        lab.says(&text, SEEN, |lab| lab.cable(false))?;
        lab.lan.serve(Offer { renew: 5, refuses, ..Offer::new(after) });
        let text = format!("eth0 has {}", Ipv4Addr::from(after));
        lab.says(&text, ASKS_AGAIN, |lab| lab.cable(true))?;
        lab.is_at(after)?;
        ensure!(!lab.lan.has(before.into()), "{} is still there", Ipv4Addr::from(before));
    }
    lab.says("eth0 has 10.66.0.3", SEEN, |lab| {
        lab.lan.serve(Offer::new(fourth));
        Ok(())
    })?;
    ensure!(!lab.lan.has(third.into()), "{} is still there", Ipv4Addr::from(third));
    lab.is_at(fourth)?;
    lab.function_answers()
}
