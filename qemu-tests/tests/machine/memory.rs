//! Functions that eat memory on a small machine, beyond their own limit or more than all may have together: they die as
//! a whole and come back, and nobody else is touched.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use qemu_tests::{
    BOTHY, Case, Gateway, Inside, Process, Running, SAMPLE_FUNCTION, SHELL_IMAGE, shell, shell_case,
};
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
        frozen(case, &mut running, &gateway)?;
        stopping(case, &mut running, &gateway)?;
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

/// Asks a function to hold so many megabytes until it ends, and waits until it does.
fn hold(case: &mut Case, running: &mut Running, function: &str, megabytes: u32) -> Result<()> {
    // In a session of its own: what a call leaves in its own ends with it, and the call waits until it is there.
    let dd = format!("touch /tmp/begun; exec busybox dd if=/dev/zero of=/dev/null bs={megabytes}M");
    let hold = format!(
        "busybox setsid busybox sh -c '{dd}' >/dev/null 2>&1 & until [ -e /tmp/begun ]; do busybox sleep 0.1; done"
    );
    case.answer(running, function, &hold)?;
    let bytes = u64::from(megabytes) << 20;
    let began = Instant::now();
    loop {
        let file = format!("/sys/fs/cgroup/workload/openfaas-fn/{function}.*/memory.current");
        let now = shell(running, &format!("cat {file}"))?;
        if now.trim().parse().is_ok_and(|now: u64| now > bytes) {
            return Ok(());
        }
        ensure!(began.elapsed() < LIMIT, "{function} does not hold {bytes} bytes, but {now}");
    }
}

/// The journal has it.
fn said(running: &mut Running, text: &str) -> Result<()> {
    let journal =
        running.shell("journalctl --no-pager -q -o short-monotonic -n 400 SYSLOG_IDENTIFIER=gateway")?.output;
    ensure!(journal.contains(text), "the journal does not say `{text}`, but:\n{journal}");
    Ok(())
}

/// The kernel has what was asked for, and keeps to it.
fn amounts(case: &mut Case, running: &mut Running) -> Result<()> {
    let group = "/sys/fs/cgroup/workload/openfaas-fn";
    for (file, wanted) in [
        ("limited.0/memory.max", "25165824"),
        ("limited.0/memory.low", "8388608"),
        ("memory.low", "8388608"),
        ("limited.0/cpu.max", "20000 100000"),
        ("limited.0/cpu.weight", "150"),
        ("limited.0/pids.max", "512"),
    ] {
        let found = shell(running, &format!("cat {group}/{file}"))?;
        ensure!(found.trim() == wanted, "{file} is {found}, not {wanted}");
    }
    // A second of a processor's time takes five, and the kernel says that it held it back.
    let figure = |running: &mut Running, name: &str| -> Result<u64> {
        let stat = shell(running, &format!("cat {group}/limited.0/cpu.stat"))?;
        let found = stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        found.with_context(|| format!("no {name} in {stat}"))
    };
    let (used, held) = (figure(running, "usage_usec")?, figure(running, "nr_throttled")?);
    let uptime = |running: &mut Running| -> Result<f64> {
        let text = shell(running, "cat /proc/uptime")?;
        text.split_whitespace().next().and_then(|text| text.parse().ok()).context(text)
    };
    let began = uptime(running)?;
    let busy = "n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done";
    while figure(running, "usage_usec")? - used < 500_000 {
        case.answer(running, "limited", busy)?;
    }
    let (used, took) = ((figure(running, "usage_usec")? - used) as f64 / 1e6, uptime(running)? - began);
    ensure!(used <= took * 0.2 + 0.2, "it used {used:.2} s in {took:.2} s");
    ensure!(figure(running, "nr_throttled")? > held, "nobody held it back");
    Ok(())
}

fn own_limit(case: &mut Case, running: &mut Running, gateway: &Gateway) -> Result<()> {
    let limited = json!({"service": "limited", "image": SHELL_IMAGE, "limits": {"memory": "24Mi", "cpu": "200m"},
                         "requests": {"memory": "8Mi", "cpu": "50m"}});
    gateway.deploy_document(&limited)?;
    case.answer(running, "limited", "true")?;
    amounts(case, running)?;
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
    let metrics = shell(running, "busybox wget -qO- http://127.0.0.1:8082/metrics")?;
    let series = |name: &str, label: &str| {
        let of = |line: &&str| {
            line.starts_with(name) && line.contains("\"limited.openfaas-fn\"") && line.contains(label)
        };
        metrics.lines().find(of).and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
    };
    ensure!(
        series("bothy_function_restarts_total", "reason=\"oom\"") == Some(1.0),
        "nor the metrics:\n{metrics}"
    );
    for name in ["pod_cpu_usage_seconds_total", "pod_memory_working_set_bytes"] {
        ensure!(series(name, "").is_some_and(|figure| figure > 0.0), "no {name}:\n{metrics}");
    }
    gateway.remove("limited")?;
    let left = shell(running, "cat /sys/fs/cgroup/workload/openfaas-fn/memory.low")?;
    ensure!(left.trim() == "0", "{left} bytes are promised to nobody");
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

/// One that stands still and holds more than it may have from now on: the next call finds another, and people are told.
fn frozen(case: &mut Case, running: &mut Running, gateway: &Gateway) -> Result<()> {
    let labels = json!({"com.bothy.scale.zero-state": "frozen"});
    gateway.deploy_document(&json!({"service": "still", "image": SHELL_IMAGE, "labels": labels}))?;
    hold(case, running, "still", 24)?;
    gateway.scale("still", 0)?;
    let group = "/sys/fs/cgroup/workload/openfaas-fn/still.*";
    let began = Instant::now();
    while !shell(running, &format!("cat {group}/cgroup.events"))?.contains("frozen 1") {
        ensure!(began.elapsed() < LIMIT, "it is not frozen");
    }
    let before = Inside::look(running)?;
    // Nothing that stands still takes more: what it has becomes too much.
    shell(running, &format!("for max in {group}/memory.max; do echo 8M >$max; done"))?;
    ensure!(case.answer(running, "still", "echo well")? == "well\n");
    let after = Inside::look(running)?;
    ensure!(
        !of(&after, "still").iter().any(|process| of(&before, "still").contains(process)),
        "it is not another"
    );
    ensure!(others(&before, &["still"]) == others(&after, &["still"]), "others died with it");
    said(running, "still.openfaas-fn: killed because it took more memory than its limit")?;
    Ok(gateway.remove("still")?)
}

/// One that is on its way out and eats meanwhile: its last call fails, and nothing of it stays.
fn stopping(case: &mut Case, running: &mut Running, gateway: &Gateway) -> Result<()> {
    gateway.deploy_document(
        &json!({"service": "leaving", "image": SHELL_IMAGE, "limits": {"memory": "24Mi"}}),
    )?;
    case.answer(running, "leaving", "true")?;
    let before = Inside::look(running)?;
    let client = gateway.client().clone();
    let eaten = format!("until [ -e /tmp/go ]; do sleep 0.2; done; {}", eat(60));
    let call = std::thread::spawn(move || client.post("/function/leaving", &eaten, LIMIT));
    let began = Instant::now();
    while of(&Inside::look(running)?, "leaving").len() <= of(&before, "leaving").len() {
        ensure!(began.elapsed() < LIMIT, "the call does not come in");
    }
    let removing = gateway.clone();
    let removal = std::thread::spawn(move || removing.remove("leaving"));
    // Nobody is let in any more, and the call goes on.
    case.status(running, "/function/leaving", 404)?;
    ensure!(!call.is_finished(), "the call ended: {:?}", call.join());
    let pid = of(&Inside::look(running)?, "leaving").first().map(|process| process.pid);
    let pid = pid.ok_or_else(|| anyhow!("it ended before its call did"))?;
    shell(running, &format!("touch /proc/{pid}/root/tmp/go"))?;
    let answer = call.join().map_err(|_| anyhow!("the call panicked"))?;
    ensure!(!answer.as_ref().is_ok_and(|answer| answer.body.contains("survived")), "no limit: {answer:?}");
    removal.join().map_err(|_| anyhow!("the removal panicked"))??;
    let after = Inside::look(running)?;
    ensure!(of(&after, "leaving").is_empty(), "it is still there: {:?}", of(&after, "leaving"));
    ensure!(others(&before, &["leaving"]) == others(&after, &["leaving"]), "others died with it");
    let groups = shell(running, "ls /sys/fs/cgroup/workload/openfaas-fn")?;
    ensure!(!groups.contains("leaving"), "{groups}");
    Ok(())
}
