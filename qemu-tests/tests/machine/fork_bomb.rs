//! A function that forks without end: its limit holds it, the machine goes on working, and its removal removes it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_tests::{BOTHY, Gateway, Inside, Running, SAMPLE_FUNCTION, SHELL_IMAGE, shell_case};
use serde_json::json;

const BOMB: &str = "bomb";
/// What a function may have of processes (stack, `runtime/spec.rs`), and what its shell and watchdog are.
const MOST: usize = 512;
/// The bomb goes on for that long beside the calls.
const BURNS: Duration = Duration::from_secs(20);
/// How long a call may take meanwhile. The processor is an emulated one that the bomb has half of.
const CALL: Duration = Duration::from_secs(60);
/// How long the removal may take, with five seconds of grace for a process that gets SIGTERM.
const REMOVAL: Duration = Duration::from_secs(60);

#[test]
fn is_held_and_removed() {
    shell_case("fork_bomb", |case| {
        let disk = case.used_disk()?;
        let mut running = case.up(&disk)?;
        let gateway = case.gateway(&running);
        case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        let before = Inside::look(&mut running)?;
        // The watchdog would end it after half a minute, and a slow machine needs that to get there.
        let patient = json!({"service": BOMB, "image": SHELL_IMAGE, "envVars": {"exec_timeout": "0"}});
        gateway.deploy_document(&patient)?;
        case.answer(&mut running, BOMB, "true")?;

        // A shell that cannot fork ends; its last act is to become the next one, which tries again.
        let bomb = "echo 'trap \"exec sh /tmp/bomb\" EXIT; while :; do sh /tmp/bomb & done' >/tmp/bomb; \
                    sh /tmp/bomb 2>/dev/null";
        let client = gateway.client().clone();
        let call = std::thread::spawn(move || {
            let _ = client.post(&format!("/function/{BOMB}"), bomb, Duration::from_secs(900));
        });
        let began = Instant::now();
        let most = hold(&mut running, &gateway)?;
        case.time(format!("{most} processes at most, for"), began.elapsed());

        let began = Instant::now();
        gateway.remove(BOMB)?;
        let after = loop {
            let now = Inside::look(&mut running)?;
            let differences = now.differs(&before);
            if differences.is_empty() && now.is_well() {
                break now;
            }
            ensure!(began.elapsed() < REMOVAL, "after the removal: {differences:?}, {}", now.status);
        };
        case.time("removed".to_owned(), began.elapsed());
        ensure!(call.join().is_ok(), "the call that held the bomb");
        let pids =
            |inside: &Inside| -> Vec<_> { inside.processes.iter().map(|p| (p.pid, p.started)).collect() };
        ensure!(pids(&before) == pids(&after), "others did not live through it:\n{before:?}\n{after:?}");
        case.power_off(running)
    });
}

/// Calls the other function while the bomb goes on. Gives the greatest number of its processes.
fn hold(running: &mut Running, gateway: &Gateway) -> Result<usize> {
    let (mut began, mut most) = (None::<Instant>, 0);
    let limit = Instant::now() + BURNS * 6;
    loop {
        let count = "cat /sys/fs/cgroup/workload/openfaas-fn/bomb.*/pids.current";
        let shell = running.shell(count)?;
        let now: usize = shell.output.trim().parse().with_context(|| format!("{count}: {}", shell.output))?;
        most = most.max(now);
        ensure!(most <= MOST, "the bomb has {most} processes, {MOST} are allowed");
        // From when it has all that it can get.
        if began.is_none() && now >= MOST - 16 {
            began = Some(Instant::now());
        }
        let called = Instant::now();
        let answer = gateway.client().post(&format!("/function/{SAMPLE_FUNCTION}"), "Bothy", CALL)?;
        ensure!(answer.body == BOTHY, "beside the bomb figlet gave {answer:?}");
        println!("{now} processes, figlet answered in {:.2} s", called.elapsed().as_secs_f64());
        let health = gateway.health()?;
        ensure!(health.status == 200, "beside the bomb the gateway's health is {health:?}");
        if began.is_some_and(|began| began.elapsed() > BURNS) {
            ensure!(now > MOST / 2, "the bomb went out by itself: {now} processes are left");
            return Ok(most);
        }
        ensure!(Instant::now() < limit, "the bomb did not grow beyond {most} processes");
    }
}
