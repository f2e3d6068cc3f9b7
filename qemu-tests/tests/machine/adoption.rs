//! What runs goes on while who started it, listens for it or keeps its words is killed, under calls that never stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use qemu_tests::{
    BOTHY, Case, Gateway, Inside, Process, Running, SAMPLE_FUNCTION, SAMPLE_IMAGE, SHELL_IMAGE, shell,
    shell_case,
};
use serde_json::Value;

/// How long a recovery may take on a busy host; how long it does take is printed.
const LIMIT: Duration = Duration::from_secs(180);
/// Pause between two looks, which take their share of the machine's processor.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// How often the supervisor is killed.
const TIMES: usize = 10;
/// How often the gateway is killed, for a median.
const GATEWAY_TIMES: usize = 5;
/// The function that says what it is told.
const SPEAKER: &str = "speaker";
/// Lines that are written while journald is killed; a pause between two makes them last longer than its absence.
const LINES: usize = 300;

// Two tests, so that two processors have a machine each; each does several things, because a boot takes long.

#[test]
fn of_containerd_and_the_supervisor() {
    lab("adoption_supervisor", |case, running| {
        containerd(case, running).context("containerd")?;
        supervisor(case, running).context("the supervisor")
    });
}

#[test]
fn of_the_gateway_and_journald() {
    lab("adoption_journald", |case, running| {
        gateway_returns(case, running).context("the gateway")?;
        journald(case, running, &[JOURNALD]).context("journald")?;
        journald(case, running, &[JOURNALD, SUPERVISOR]).context("journald with the supervisor")
    });
}

/// A machine with both functions.
fn lab(name: &str, test: impl Fn(&mut Case, &mut Running) -> Result<()>) {
    shell_case(name, |case| {
        let disk = case.used_disk()?;
        let mut running = case.up(&disk)?;
        let gateway = case.gateway(&running);
        gateway.deploy(SPEAKER, SHELL_IMAGE)?;
        case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        case.answer(&mut running, SPEAKER, "true")?;
        test(case, &mut running)?;
        case.power_off(running)
    });
}

/// Where functions live, and what every one of them has.
const FUNCTIONS: &str = "workload/openfaas-fn/";
const WATCHDOG: &str = "watchdog";
const SUPERVISOR: &str = "init";
const JOURNALD: &str = "system/journald";
const CONTAINERD: &str = "system/containerd";
const GATEWAY: &str = "system/gateway";

/// Ten times in a row: each service is the same process with the same history, and no call fails.
fn supervisor(case: &mut Case, running: &mut Running) -> Result<()> {
    // A history that the next supervisors have to know.
    let before = Inside::look(running)?;
    kill(running, &before, &["system/nats"])?;
    well(running, &before, &["system/nats"])?;
    let history = services(running)?;
    ensure!(history["nats"]["restarts"] == 1, "nats was killed once: {}", history["nats"]);

    let load = Load::start(&case.gateway(running));
    let before = Inside::look(running)?;
    let mut slowest = Duration::ZERO;
    for time in 1..=TIMES {
        let now = Inside::look(running)?;
        let began = Instant::now();
        kill(running, &now, &[SUPERVISOR])?;
        well(running, &now, &[SUPERVISOR]).with_context(|| format!("kill {time}"))?;
        slowest = slowest.max(began.elapsed());
    }
    let after = Inside::look(running)?;
    let calls = load.end()?;
    nobody_else(&before, &after, &[SUPERVISOR])?;
    let now = services(running)?;
    for (name, then) in &history {
        for key in ["pid", "state", "restarts", "since_ms"] {
            ensure!(now[name][key] == then[key], "{name}: {key} was {} and is {}", then[key], now[name][key]);
        }
    }
    println!("supervisor killed {TIMES} times: {calls} calls, none failed");
    case.time("supervisor killed: well again, slowest".to_owned(), slowest);
    Ok(())
}

/// Calls of a function that runs do not need it.
fn containerd(case: &mut Case, running: &mut Running) -> Result<()> {
    let load = Load::start(&case.gateway(running));
    let before = Inside::look(running)?;
    let began = Instant::now();
    kill(running, &before, &[CONTAINERD])?;
    well(running, &before, &[CONTAINERD])?;
    case.time("containerd killed: well again".to_owned(), began.elapsed());
    let after = Inside::look(running)?;
    let calls = load.end()?;
    nobody_else(&before, &after, &[CONTAINERD])?;
    println!("containerd killed: {calls} calls, none failed");
    // It is of use again, not only there.
    case.gateway(running).deploy("after", SAMPLE_IMAGE)?;
    ensure!(case.answer(running, "after", "Bothy")? == BOTHY);
    case.gateway(running).remove("after")?;
    gone_again(running, &before)
}

/// Waits until the machine has what it had before a function came and went.
fn gone_again(running: &mut Running, before: &Inside) -> Result<()> {
    let began = Instant::now();
    loop {
        let differs = lasting(Inside::look(running)?.differs(before));
        if differs.is_empty() {
            return Ok(());
        }
        ensure!(began.elapsed() < LIMIT, "what was removed left something: {differs:?}");
    }
}

/// No line is lost that came when it was away or later: not of a program's datagrams, not of a function's output, not of
/// a service's stream; and who has a stream does not end with it.
fn journald(case: &mut Case, running: &mut Running, victims: &[&str]) -> Result<()> {
    let load = Load::start(&case.gateway(running));
    let before = Inside::look(running)?;
    let tag = format!("lines-{}", before.of_group(victims[0])?.pid);
    let script = format!(
        "i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); logger -t {tag} \"datagram $i\"; [ $((i % 5)) != 0 ] || sleep 0.1; done; touch /run/{tag}"
    );
    shell(running, &format!("({script}) >/dev/null 2>&1 &"))?;
    let gateway = case.gateway(running);
    let told = format!(
        "i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo {tag} output $i >&2; [ $((i % 5)) != 0 ] || sleep 0.1; done"
    );
    let speaker =
        std::thread::spawn(move || gateway.client().post(&format!("/function/{SPEAKER}"), &told, LIMIT));
    let sources = [
        (format!("SYSLOG_IDENTIFIER={tag}"), "datagram".to_owned()),
        (format!("BOTHY_FUNCTION={SPEAKER}"), format!("{tag} output")),
    ];
    for (matches, what) in &sources {
        until_logged(running, matches, what, 1)?;
    }

    let began = Instant::now();
    kill(running, &before, victims)?;
    // Or the lines would have been written before it died.
    for (matches, what) in &sources {
        let written = logged(running, matches, what)?;
        ensure!(written < LINES - 50, "{written} lines `{what}` came too soon for this test");
    }
    well(running, &before, victims)?;
    case.time(format!("{} killed: well again", victims.join(" and ")), began.elapsed());
    let after = Inside::look(running)?;
    nobody_else(&before, &after, victims)?;

    let answer = speaker.join().map_err(|_| anyhow!("the speaker's call panicked"))??;
    ensure!(answer.status == 200, "the speaker answered {answer:?}");
    for (matches, what) in &sources {
        // One may have been in the hands of who was killed; of what came later none is missing.
        until_logged(running, matches, what, LINES - 1)?;
        until_logged(running, matches, &format!("{what} 2[0-9][0-9]"), 100)?;
    }
    // nats says that it has read its file again, to a stream that it opened at the journald before this one.
    let pid = after.of_group("system/nats")?.pid;
    let by_stream = format!("_PID={pid} _TRANSPORT=stdout");
    let lines = logged(running, &by_stream, "Reloaded server configuration")?;
    shell(running, &format!("kill -HUP {pid}"))?;
    until_logged(running, &by_stream, "Reloaded server configuration", lines + 1)?;
    let calls = load.end()?;
    println!(
        "{} killed: {calls} calls, none failed; {LINES} lines each way, none lost but what it had in hand",
        victims.join(" and ")
    );
    Ok(())
}

/// The socket is held: whoever connects while the gateway is away waits, and is not refused.
fn gateway_returns(case: &mut Case, running: &mut Running) -> Result<()> {
    // wget tells "refused" from an answer that broke off; the latter is what happens to a call of the killed process.
    let ask = "wget -q -T 60 -O /dev/null http://127.0.0.1:8080/healthz 2>&1";
    let script = format!(
        "n=0; while [ ! -e /run/enough ]; do {ask} && n=$((n+1)); done >/run/refusals; echo $n >/run/asked"
    );
    shell(running, &format!("({script}) >/dev/null 2>&1 &"))?;
    for _ in 0..GATEWAY_TIMES {
        let before = Inside::look(running)?;
        kill(running, &before, &[GATEWAY])?;
        well(running, &before, &[GATEWAY])?;
        let after = Inside::look(running)?;
        nobody_else(&before, &after, &[GATEWAY])?;
        let answer = case.gateway(running).call(SAMPLE_FUNCTION, "Bothy")?;
        ensure!(answer.status == 200 && answer.body == BOTHY, "figlet answers {answer:?}");
    }
    let asked =
        shell(running, "touch /run/enough; while [ ! -e /run/asked ]; do sleep 0.1; done; cat /run/asked")?;
    let said = shell(running, "cat /run/refusals")?;
    ensure!(!said.contains("refused"), "a connect was refused:\n{said}");
    let (answered, broken) = (asked.trim().parse::<usize>()?, said.lines().count());
    ensure!(answered > 10 * broken.max(1), "{answered} answers, {broken} broken off:\n{said}");
    let times = absences(running)?;
    ensure!(times.len() >= GATEWAY_TIMES, "the journal has {} ends of the gateway", times.len());
    println!(
        "gateway killed {GATEWAY_TIMES} times: {answered} answers, none refused, {broken} broken off; from end to ready, ms: {times:?}"
    );
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    case.time("gateway killed: ready again, median".to_owned(), Duration::from_millis(median));
    Ok(())
}

/// From each end of the gateway to its being ready, in milliseconds, sorted: as the ledger told the journal.
fn absences(running: &mut Running) -> Result<Vec<u64>> {
    let entries = shell(
        running,
        "journalctl -q -b --no-pager -o json --output-fields=STATE,STATE_BEFORE SERVICE=gateway",
    )?;
    let (mut times, mut ended) = (Vec::new(), None);
    for line in entries.lines() {
        let entry: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let at = entry["__MONOTONIC_TIMESTAMP"].as_str().and_then(|at| at.parse::<u64>().ok());
        let at = at.context("an entry without a time")?;
        match (entry["STATE_BEFORE"].as_str(), entry["STATE"].as_str()) {
            (Some("ready"), Some(_)) => ended = Some(at),
            (_, Some("ready")) => times.extend(ended.take().map(|ended| (at - ended) / 1000)),
            _ => {}
        }
    }
    times.sort_unstable();
    Ok(times)
}

/// Calls from two sides until it ends, with pauses as long as the calls: so the emulated processors have time for what
/// is under test as well. Every answer has to be right.
struct Load {
    enough: Arc<AtomicBool>,
    callers: Vec<JoinHandle<Result<usize>>>,
}

impl Load {
    fn start(gateway: &Gateway) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let caller = || {
            let (enough, gateway) = (enough.clone(), gateway.clone());
            std::thread::spawn(move || {
                let mut calls = 0;
                while !enough.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let answer = gateway
                        .call(SAMPLE_FUNCTION, "Bothy")
                        .with_context(|| format!("call {calls} of the load"))?;
                    ensure!(answer.status == 200 && answer.body == BOTHY, "call {calls}: {answer:?}");
                    calls += 1;
                    std::thread::sleep(began.elapsed());
                }
                Ok(calls)
            })
        };
        let callers = (0..2).map(|_| caller()).collect();
        Self { enough, callers }
    }

    /// How many calls there were; an error if one failed.
    fn end(mut self) -> Result<usize> {
        self.enough.store(true, Ordering::Relaxed);
        let mut calls = 0;
        for caller in self.callers.drain(..) {
            calls += caller.join().map_err(|_| anyhow!("a caller panicked"))??;
        }
        ensure!(calls > 0, "the load was none");
        Ok(calls)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
    }
}

/// Fails when one who was not killed is another process now.
fn nobody_else(before: &Inside, after: &Inside, groups: &[&str]) -> Result<()> {
    let (before, after) = (others(before, groups), others(after, groups));
    ensure!(before == after, "other processes than before:\n{before:#?}\n{after:#?}");
    Ok(())
}

/// Process 1 is in the supervisor's group and stays.
fn is_victim(process: &Process, groups: &[&str]) -> bool {
    process.pid != 1 && groups.contains(&process.group.as_str())
}

fn kill(running: &mut Running, inside: &Inside, groups: &[&str]) -> Result<()> {
    let victims: Vec<_> = inside.processes.iter().filter(|process| is_victim(process, groups)).collect();
    ensure!(victims.len() == groups.len(), "not one process each of {groups:?}, but {victims:?}");
    let numbers: Vec<_> = victims.iter().map(|victim| victim.pid.to_string()).collect();
    // What the last supervisor wrote is no proof that the next one is well.
    let forget = if groups.contains(&SUPERVISOR) { "rm -f /run/bothy/status.json; " } else { "" };
    shell(running, &format!("{forget}kill -9 {}", numbers.join(" ")))?;
    Ok(())
}

/// Waits until there is another process in the place of each one that was killed, and all is well.
fn well(running: &mut Running, before: &Inside, groups: &[&str]) -> Result<()> {
    let began = Instant::now();
    loop {
        let now = Inside::look(running)?;
        let all_new = groups.iter().all(|group| {
            let of = |inside: &Inside| inside.of_group(group).map(|p| (p.pid, p.started)).ok();
            of(&now).is_some() && of(&now) != of(before)
        });
        let differs = lasting(now.differs(before));
        if all_new && now.is_well() && differs.is_empty() {
            return Ok(());
        }
        ensure!(began.elapsed() < LIMIT, "not well: {differs:?}, {}", now.status);
        running.check()?;
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Differences without a call's processes in a function, which come and go.
fn lasting(mut differences: Vec<String>) -> Vec<String> {
    differences.retain(|text| !text.contains(FUNCTIONS) || text.starts_with(WATCHDOG));
    differences
}

/// Who is not in these groups, by number and start, without a call's processes.
fn others(inside: &Inside, groups: &[&str]) -> Vec<(i32, u64, String)> {
    let lasts = |p: &&Process| !p.group.contains(FUNCTIONS) || p.name.starts_with(WATCHDOG);
    let others = inside.processes.iter().filter(|p| !is_victim(p, groups)).filter(lasts);
    others.map(|p| (p.pid, p.started, p.role())).collect()
}

fn services(running: &mut Running) -> Result<BTreeMap<String, Value>> {
    let mut services = BTreeMap::new();
    for line in shell(running, "bothyctl services --json")?.lines() {
        let service: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        services.insert(service["name"].as_str().context("a service without a name")?.to_owned(), service);
    }
    Ok(services)
}

/// How many lines of the journal match and begin with a text.
fn logged(running: &mut Running, matches: &str, begin: &str) -> Result<usize> {
    let count = shell(
        running,
        &format!(
            "journalctl -q -b --no-pager -o cat {matches} 2>/dev/null | sort -u | grep -c '{begin}' || true"
        ),
    )?;
    count.trim().parse().with_context(|| count)
}

fn until_logged(running: &mut Running, matches: &str, begin: &str, lines: usize) -> Result<()> {
    let began = Instant::now();
    loop {
        let found = logged(running, matches, begin)?;
        if found >= lines {
            return Ok(());
        }
        ensure!(
            began.elapsed() < LIMIT,
            "{found} of {lines} lines `{begin}` of {matches} are in the journal"
        );
    }
}
