//! kill -9 of every process, alone, in pairs, all at once, again and again: the machine is well again without hands,
//! who was not killed goes on under the same number, and nothing is left behind.

use std::collections::BTreeSet;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use qemu_tests::{BOTHY, Case, Gateway, Inside, Process, Running, SAMPLE_FUNCTION, SHELL_IMAGE, shell_case};

/// The function that is struck; the other one is a bystander.
const VICTIM: &str = "shell";
/// How long a recovery may take. Not how long it takes: that is printed. A busy host is an order slower than a quiet one.
const LIMIT: Duration = Duration::from_secs(180);
/// Pause between two looks, which take their share of the machine's processor.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// How long the call may last whose process is killed.
const CALL: Duration = Duration::from_secs(900);
/// What that call runs, and how one sees it.
const CHILD: &str = "sleep 800";
/// How often one service is killed as soon as it is back.
const IN_A_ROW: usize = 5;

/// The machine under test.
struct Lab<'a> {
    case: &'a mut Case,
    running: Running,
    gateway: Gateway,
    /// How it was before anything was done to it.
    before: Inside,
    recoveries: Vec<(Duration, String)>,
}

/// Which pairs are struck.
#[derive(Clone, Copy)]
enum Pairs {
    /// Each role in one of them, chosen by a seed.
    Some(u64),
    All,
}

#[test]
fn of_every_process_and_of_some_pairs() {
    faults("faults", Pairs::Some(7));
}

mod long {
    /// All pairs take longer than every change should wait.
    #[test]
    fn of_every_pair() {
        super::faults("faults_all", super::Pairs::All);
    }
}

fn faults(name: &str, pairs: Pairs) {
    shell_case(name, |case| {
        let disk = case.used_disk()?;
        let mut running = case.up(&disk)?;
        let gateway = case.gateway(&running);
        gateway.deploy(VICTIM, SHELL_IMAGE)?;
        case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        case.answer(&mut running, VICTIM, "true")?;
        let before = Inside::look(&mut running)?;
        ensure!(before.is_well(), "the machine is not well before anything was done: {}", before.status);
        let mut lab = Lab { case, running, gateway, before, recoveries: Vec::new() };
        let done = lab.all(pairs);
        lab.report();
        done?;
        let Lab { case, running, .. } = lab;
        case.power_off(running)
    });
}

impl Lab<'_> {
    fn all(&mut self, pairs: Pairs) -> Result<()> {
        self.process_1_stays()?;
        let mut roles = self.victims(&self.before);
        println!("processes: {}", roles.join(", "));
        ensure!(roles.len() >= 8, "only {} kinds of processes to kill: {roles:?}", roles.len());
        roles.push(CHILD.to_owned());
        for role in &roles {
            self.strike(&[role])?;
        }
        for (one, other) in pairs.of(&roles) {
            self.strike(&[&one, &other])?;
        }
        self.burst()?;
        self.in_a_row()
    }

    /// The kinds of processes that can be killed, from what is there: a new service is among them by itself.
    fn victims(&self, inside: &Inside) -> Vec<String> {
        let struck = |p: &&Process| p.pid != 1 && !p.is_of(SAMPLE_FUNCTION);
        inside
            .processes
            .iter()
            .filter(struck)
            .map(Process::role)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    fn process_1_stays(&mut self) -> Result<()> {
        self.running.shell("kill -9 1; sleep 1")?;
        let now = Inside::look(&mut self.running)?;
        ensure!(same(&self.before, &now, |p| p.pid == 1), "process 1 is another one");
        Ok(())
    }

    /// Kills all processes of some roles at once, and waits until all is as it was.
    fn strike(&mut self, roles: &[&str]) -> Result<()> {
        let call = roles.contains(&CHILD).then(|| self.call()).transpose()?;
        let before = Inside::look(&mut self.running)?;
        let struck =
            |p: &Process| p.pid != 1 && (roles.contains(&p.role().as_str()) || is_child(p) && call.is_some());
        self.kill(&before, &roles.join(" and "), struck)?;
        if let Some(call) = call {
            // Any answer is fine, or none; but not one that never comes.
            let began = Instant::now();
            while !call.is_finished() {
                ensure!(began.elapsed() < LIMIT, "the call whose process was killed still waits");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Everything but process 1.
    fn burst(&mut self) -> Result<()> {
        let before = Inside::look(&mut self.running)?;
        self.kill(&before, "all at once", |p| p.pid != 1)
    }

    /// A service that was well for long is killed as soon as it is back: it does not stay away for minutes.
    fn in_a_row(&mut self) -> Result<()> {
        for turn in 1..=IN_A_ROW {
            let before = Inside::look(&mut self.running)?;
            self.kill(&before, &format!("nats, turn {turn}"), |p| p.group == "system/nats")?;
        }
        Ok(())
    }

    /// A call of the victim that lasts; its process is there when this returns.
    fn call(&mut self) -> Result<JoinHandle<()>> {
        let client = self.gateway.client().clone();
        let call = std::thread::spawn(move || {
            let _ = client.post(&format!("/function/{VICTIM}"), &format!("exec {CHILD}"), CALL);
        });
        let began = Instant::now();
        while !Inside::look(&mut self.running)?.processes.iter().any(is_child) {
            ensure!(began.elapsed() < LIMIT, "the call of {VICTIM} does not run");
        }
        Ok(call)
    }

    fn kill(&mut self, before: &Inside, what: &str, struck: impl Fn(&Process) -> bool) -> Result<()> {
        let victims: Vec<_> = before.processes.iter().filter(|p| struck(p)).cloned().collect();
        ensure!(!victims.is_empty(), "there is nothing to kill for {what}");
        let numbers: Vec<_> = victims.iter().map(|victim| victim.pid.to_string()).collect();
        // What the last supervisor wrote is no proof that the next one is well.
        let supervisor = victims.iter().any(|victim| victim.group == "init");
        let forget = if supervisor { "rm -f /run/bothy/status.json; " } else { "" };
        let command = format!("{forget}kill -9 {}", numbers.join(" "));
        let began = Instant::now();
        self.running.shell(&command)?;
        let mut last = String::new();
        let after = loop {
            let now = Inside::look(&mut self.running)?;
            let mut missing = now.differs(&self.before);
            let alive = victims.iter().filter(|victim| now.processes.contains(victim));
            missing.extend(alive.map(|victim| format!("{} lives", victim.role())));
            if !now.is_well() {
                missing.push(format!("status: {}", now.status));
            }
            if missing.is_empty() {
                break now;
            }
            if began.elapsed() > LIMIT {
                bail!("after kill -9 of {what} the machine is not as before:\n{}", missing.join("\n"));
            }
            last = missing.into_iter().next().unwrap_or_default().chars().take(80).collect();
            self.running.check()?;
            std::thread::sleep(LOOK_AGAIN);
        };
        self.recoveries.push((began.elapsed(), format!("{what}; last came {last}")));
        // A function dies as a whole.
        let function = victims.iter().any(|p| p.is_of(VICTIM) && !is_child(p));
        let goes_on = |p: &Process| !(struck(p) || is_child(p) || function && p.is_of(VICTIM));
        ensure!(same(before, &after, goes_on), "after kill -9 of {what} others are new as well");
        self.functions_answer().with_context(|| format!("after kill -9 of {what}"))
    }

    fn functions_answer(&mut self) -> Result<()> {
        for (function, body, expected) in [(SAMPLE_FUNCTION, "Bothy", BOTHY), (VICTIM, "echo well", "well\n")]
        {
            let ask = || self.gateway.call(function, body);
            let what = format!("{function} answers");
            let (answer, _) = self.running.answer(&what, LIMIT, ask, |answer| answer.status == 200)?;
            ensure!(answer.body == expected, "{function} wrote:\n{}", answer.body);
        }
        Ok(())
    }

    fn report(&mut self) {
        self.recoveries.sort();
        let Some((worst, what)) = self.recoveries.last().cloned() else { return };
        let median = self.recoveries[self.recoveries.len() / 2].0;
        println!("{} times killed and well again; the slowest:", self.recoveries.len());
        for (took, what) in self.recoveries.iter().rev().take(5) {
            println!("  {:7.2} s  {what}", took.as_secs_f64());
        }
        self.case.time("recovery, median".to_owned(), median);
        self.case.time(format!("recovery, worst: {what}"), worst);
    }
}

impl Pairs {
    fn of(self, roles: &[String]) -> Vec<(String, String)> {
        let pair = |a: usize, b: usize| (roles[a].clone(), roles[b].clone());
        match self {
            Self::All => (0..roles.len())
                .flat_map(|a| (a + 1..roles.len()).map(move |b| (a, b)))
                .map(|(a, b)| pair(a, b))
                .collect(),
            Self::Some(seed) => {
                // Shuffled (Fisher and Yates) by a generator of Knuth's; then two at a time, an odd one with the first.
                let mut state = seed;
                let mut order: Vec<_> = (0..roles.len()).collect();
                for at in (1..order.len()).rev() {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    order.swap(at, (state >> 33) as usize % (at + 1));
                }
                order.chunks(2).map(|two| pair(two[0], two.get(1).copied().unwrap_or(order[0]))).collect()
            }
        }
    }
}

fn is_child(process: &Process) -> bool {
    process.command == CHILD
}

/// Whether the processes that a condition chooses are the same ones, by number and start.
fn same(before: &Inside, after: &Inside, chosen: impl Fn(&Process) -> bool) -> bool {
    let identities = |inside: &Inside| -> BTreeSet<(i32, u64)> {
        inside.processes.iter().filter(|p| chosen(p)).map(|p| (p.pid, p.started)).collect()
    };
    let (before, after) = (identities(before), identities(after));
    if before != after {
        println!("before: {before:?}\nafter:  {after:?}");
    }
    before == after
}
