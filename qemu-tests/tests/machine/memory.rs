//! Functions that eat memory on a small machine, beyond their own limit or more than all may have together: they die as
//! a whole and come back, and nobody else is touched.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use qemu_tests::{BOTHY, Case, Gateway, Inside, Process, Running, SAMPLE_FUNCTION, SHELL_IMAGE, shell_case};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(120);

/// How long containerd may keep silent while functions eat.
const UNWELL: Duration = Duration::from_secs(10);

#[test]
fn only_functions_die() {
    shell_case("memory", |case| {
        let disk = case.used_disk()?;
        let mut machine = case.machine(&disk)?;
        machine.memory_mib = 256;
        let mut running = case.boot(&machine)?;
        let gateway = case.gateway(&running);
        case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        own_limit(case, &mut running, &gateway)?;
        together(case, &mut running, &gateway)?;
        case.power_off(running)
    });
}

/// A process that takes so many megabytes and touches each page of them. More than the machine has it would not get.
fn eat(megabytes: u32) -> String {
    format!("dd if=/dev/zero of=/dev/null bs={megabytes}M count=1; echo survived")
}

fn of<'a>(inside: &'a Inside, function: &str) -> Vec<&'a Process> {
    inside.processes.iter().filter(|p| p.is_of(function)).collect()
}

/// Waits until all of a function's processes are others than before, and the machine is well.
fn again(running: &mut Running, before: &Inside, functions: &[&str]) -> Result<Inside> {
    let began = Instant::now();
    loop {
        let now = Inside::look(running)?;
        let new = functions.iter().all(|function| {
            let old = of(before, function);
            let new = of(&now, function);
            new.len() == old.len() && new.iter().all(|p| !old.contains(p))
        });
        if new && now.is_well() && now.differs(before).is_empty() {
            return Ok(now);
        }
        let all = || {
            functions.iter().map(|function| (of(before, function), of(&now, function))).collect::<Vec<_>>()
        };
        ensure!(began.elapsed() < LIMIT, "not back: {:?}, {:?}, {}", now.differs(before), all(), now.status);
    }
}

fn others(inside: &Inside, functions: &[&str]) -> Vec<Process> {
    inside
        .processes
        .iter()
        .filter(|p| !functions.iter().any(|f| p.is_of(f)))
        .cloned()
        .map(|p| Process { state: '-', ..p })
        .collect()
}

/// The journal has it.
fn said(running: &mut Running, text: &str) -> Result<()> {
    let journal =
        running.shell("journalctl --no-pager -q -o short-monotonic -n 400 SYSLOG_IDENTIFIER=gateway")?.output;
    ensure!(journal.contains(text), "the journal does not say `{text}`, but:\n{journal}");
    Ok(())
}

fn own_limit(case: &mut Case, running: &mut Running, gateway: &Gateway) -> Result<()> {
    let limited = json!({"service": "limited", "image": SHELL_IMAGE, "limits": {"memory": "24Mi"}});
    gateway.deploy_document(&limited)?;
    case.answer(running, "limited", "true")?;
    let described = case.status(running, "/system/function/limited?usage=1", 200)?.body;
    let usage = serde_json::from_str::<Value>(&described)?["usage"].clone();
    let memory = usage["totalMemoryBytes"].as_u64().unwrap_or(0);
    ensure!((100 << 10..24 << 20).contains(&memory) && usage["cpu"].as_f64().is_some(), "{described}");
    let before = Inside::look(running)?;
    let began = Instant::now();
    // Beside the process that eats there is one that does not: it dies with it.
    let answer = gateway.call("limited", &format!("sleep 500 & {}", eat(60)));
    ensure!(!answer.as_ref().is_ok_and(|answer| answer.body.contains("survived")), "no limit: {answer:?}");
    let after = again(running, &before, &["limited"])?;
    case.time("a function beyond its own limit: back".to_owned(), began.elapsed());
    ensure!(others(&before, &["limited"]) == others(&after, &["limited"]), "others died with it");
    ensure!(case.answer(running, "limited", "echo well")? == "well\n");
    ensure!(case.answer(running, SAMPLE_FUNCTION, "Bothy")? == BOTHY);
    let cause = "killed because it took more memory than its limit";
    said(running, &format!("limited.openfaas-fn: {cause}"))?;
    let own = running.shell("journalctl --no-pager -q -o cat BOTHY_FUNCTION=limited")?.output;
    ensure!(own.contains(&format!("bothy: {cause}")), "the function's own log does not say so:\n{own}");
    let described = gateway.client().request("GET", "/system/function/limited", None, LIMIT)?;
    ensure!(described.body.contains("com.bothy.last-exit"), "nor its description: {described:?}");
    ensure!(described.body.contains(cause), "nor its description: {described:?}");
    let body = json!({"functionName": "limited"}).to_string();
    let gone = gateway.client().request("DELETE", "/system/functions", Some(&body), LIMIT)?;
    ensure!(gone.status < 300, "the removal was answered with {gone:?}");
    // containerd removes the files of a snapshot later.
    let snapshots = |inside: &Inside| inside.counts.get("snapshots").copied().unwrap_or(0);
    let began = Instant::now();
    while snapshots(&Inside::look(running)?) + 1 != snapshots(&after) {
        ensure!(began.elapsed() < LIMIT, "the snapshot stays");
    }
    Ok(())
}

/// Two functions without limits of their own, each of which takes more than there is for all. The machine answers while
/// they do, and so does the bystander.
fn together(case: &mut Case, running: &mut Running, gateway: &Gateway) -> Result<()> {
    const EATERS: [&str; 2] = ["one", "two"];
    for eater in EATERS {
        gateway.deploy(eater, SHELL_IMAGE)?;
        case.answer(running, eater, "true")?;
    }
    let before = Inside::look(running)?;
    let began = Instant::now();
    let calls = EATERS.map(|eater| {
        let client = gateway.client().clone();
        std::thread::spawn(move || {
            (client.post(&format!("/function/{eater}"), &eat(180), LIMIT), began.elapsed())
        })
    });
    let (mut slowest, mut unwell) = (Duration::ZERO, None);
    while !calls.iter().all(JoinHandle::is_finished) {
        let asked = Instant::now();
        let health = gateway.health()?;
        // An emulated machine may be slow to read containerd's pages back; what runs must answer all the same.
        unwell = (health.status != 200).then(|| unwell.unwrap_or(asked));
        ensure!(
            unwell.is_none_or(|since: Instant| since.elapsed() < UNWELL),
            "the gateway is not well beside functions that eat: {}",
            health.body
        );
        let answer = gateway.call(SAMPLE_FUNCTION, "Bothy")?;
        ensure!(answer.status == 200 && answer.body == BOTHY, "the bystander gave {answer:?}");
        slowest = slowest.max(asked.elapsed());
        running.check()?;
    }
    for call in calls {
        let (answer, took) = call.join().map_err(|_| anyhow!("a call panicked"))?;
        let survived = answer.as_ref().is_ok_and(|answer| answer.body.contains("survived"));
        ensure!(!survived, "there is no limit: {answer:?}");
        case.time("a function beyond what all may have: killed".to_owned(), took);
    }
    case.time("health and bystander meanwhile, the slowest".to_owned(), slowest);
    let after = again(running, &before, &EATERS)?;
    case.time("both back".to_owned(), began.elapsed());
    ensure!(others(&before, &EATERS) == others(&after, &EATERS), "others died with them");
    for eater in EATERS {
        ensure!(case.answer(running, eater, "echo well")? == "well\n");
        let cause = "killed because all functions together took more memory than there is";
        said(running, &format!("{eater}.openfaas-fn: {cause}"))?;
        let status = running.shell("bothyctl status")?.output;
        ensure!(status.contains(&format!("notice: function {eater}.openfaas-fn: {cause}")), "{status}");
    }
    Ok(())
}
