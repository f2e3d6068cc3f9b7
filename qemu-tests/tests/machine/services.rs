//! What a running machine makes of its services' declarations, a clock that jumps under it, and a kernel that crashes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::{BOTHY, Case, Running, SAMPLE_FUNCTION, SAMPLE_IMAGE, assert_clean, shell, shell_case};

const SERVICES: [&str; 6] = ["journald", "containerd", "nats", "log", "gateway", "queue-worker"];

/// Main processes by name.
fn pids(running: &mut Running) -> Result<BTreeMap<String, String>> {
    let mut pids = BTreeMap::new();
    for name in SERVICES {
        let command = format!("cat /run/bothy/services/{name}.json");
        let record: serde_json::Value = serde_json::from_str(&shell(running, &command)?)?;
        pids.insert(name.to_owned(), record["who"]["pid"].to_string());
    }
    Ok(pids)
}

#[test]
fn are_confined_and_survive_the_clock_and_a_crash() {
    shell_case("services", |case| {
        let disk = case.used_disk()?;
        let mut machine = case.machine(&disk)?;
        machine.crash_store = Some(case.folder().join("crash-store"));
        let mut running = case.boot(&machine)?;
        case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        confined(&mut running)?;
        settings(&mut running)?;
        clock(case, &mut running)?;
        crash(case, &mut running)?;
        case.power_off(running)?;
        assert_clean(case.artifacts(), &disk, case.folder())
    });
}

/// Rights, limits and views are those of the declarations.
fn confined(running: &mut Running) -> Result<()> {
    let pids = pids(running)?;
    let host = shell(running, "readlink /proc/1/ns/mnt")?;
    for (name, bounding) in [
        ("journald", Some("000000040008000f")),
        ("nats", Some("0000000000000000")),
        ("log", Some("0000000000000000")),
        ("gateway", Some("000000000128342f")),
        ("queue-worker", Some("0000000000000000")),
        ("containerd", None),
    ] {
        let pid = &pids[name];
        let status = shell(running, &format!("cat /proc/{pid}/status"))?;
        let field = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.map(|line| line.trim().to_owned()).with_context(|| format!("{name} has no {key} {status}"))
        };
        if let Some(bounding) = bounding {
            for set in ["CapBnd:", "CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
                ensure!(field(set)? == bounding, "{name}: {set} {}", field(set)?);
            }
            ensure!(field("NoNewPrivs:")? == "1", "{name} could gain rights");
        }
        ensure!((field("Uid:")? == "900\t900\t900\t900") == (name == "nats"), "{name} is {}", field("Uid:")?);
        let own = shell(running, &format!("readlink /proc/{pid}/ns/mnt"))? != host;
        ensure!(
            own == ["journald", "nats", "log", "queue-worker"].contains(&name),
            "{name}: a view of its own is {own}"
        );
        let group = format!("/sys/fs/cgroup/system/{name}");
        let limits = shell(running, &format!("cd {group}; cat memory.max pids.max cgroup.procs"))?;
        let mut lines = limits.lines();
        ensure!(lines.next() != Some("max") && lines.next() != Some("max"), "{name} has no limits: {limits}");
        ensure!(lines.any(|line| line == pid), "{name} is not in its group: {limits}");
    }
    // Nobody of them sees a secret; who has no right to look still cannot.
    for name in ["journald", "nats", "log", "queue-worker"] {
        let pid = &pids[name];
        let mounts = shell(running, &format!("cat /proc/{pid}/mountinfo"))?;
        let at = |place: &str| mounts.lines().rev().find(|line| line.split(' ').nth(4) == Some(place));
        let hidden = if name == "nats" { "/var/lib/bothy" } else { "/var/lib/bothy/secrets" };
        ensure!(at(hidden).is_some_and(|line| line.contains(" - tmpfs ")), "{name} sees {hidden}: {mounts}");
        let root = at("/var").or(at("/")).context("there is no root")?;
        ensure!(root.split(' ').nth(5).is_some_and(|o| o.starts_with("ro")), "{name} may write: {root}");
    }
    Ok(())
}

/// The kernel has the baseline, and knows all of it.
fn settings(running: &mut Running) -> Result<()> {
    for (name, value) in [
        ("kernel/panic", "10"),
        ("kernel/panic_on_oops", "1"),
        ("kernel/kptr_restrict", "2"),
        ("kernel/unprivileged_bpf_disabled", "1"),
        ("kernel/kexec_load_disabled", "1"),
        ("net/ipv4/ip_forward", "1"),
        ("net/core/somaxconn", "4096"),
    ] {
        let now = shell(running, &format!("cat /proc/sys/{name}"))?;
        ensure!(now.trim() == value, "{name} is {now}");
    }
    // Pages of 2 MiB would make an idle machine twice as large: each Go program touches a little in many places.
    let huge = shell(running, "cat /sys/kernel/mm/transparent_hugepage/enabled")?;
    ensure!(huge.contains("[never]"), "transparent huge pages: {huge}");
    let said = shell(running, "dmesg")?;
    ensure!(!said.contains("settings that this kernel does not have"), "{said}");
    Ok(())
}

/// The clock jumps: no service ends for it, no call fails.
fn clock(case: &mut Case, running: &mut Running) -> Result<()> {
    let before = pids(running)?;
    for date in ["2090-01-01 00:00:00", "1970-01-02 00:00:00", "2026-12-01 00:00:00"] {
        shell(running, &format!("date -u -s '{date}'"))?;
        for _ in 0..5 {
            let answer = case.gateway(running).call(SAMPLE_FUNCTION, "Bothy")?;
            ensure!(answer.status == 200, "at {date} the function answers {}", answer.status);
        }
        let name = format!("at-{}", date.get(..4).unwrap_or_default());
        case.gateway(running).deploy(&name, SAMPLE_IMAGE)?;
        ensure!(case.answer(running, &name, "Bothy")? == BOTHY);
    }
    let after = pids(running)?;
    ensure!(before == after, "services were {before:?} and are {after:?}");
    Ok(())
}

/// The kernel crashes: the machine comes back by itself, with the kernel's last words and another random seed.
fn crash(case: &mut Case, running: &mut Running) -> Result<()> {
    const SEED: &str = "sha256sum /var/lib/bothy/random-seed; stat -c '%a %s' /var/lib/bothy/random-seed";
    let seed = shell(running, SEED)?;
    ensure!(seed.contains("600 512"), "the seed is {seed}");
    let mark = running.console().mark();
    running.console().excuse_panics(true);
    // The answer never comes; the words of the kernel do.
    let _ = running.shell_within("sync; echo c > /proc/sysrq-trigger", Duration::from_secs(5));
    let line = running.console().wait(image::qemu::READY, mark, Duration::from_secs(300))?;
    running.console().excuse_panics(false);
    case.time("ready again after a crash".to_owned(), line.at);
    ensure!(case.answer(running, SAMPLE_FUNCTION, "Bothy")? == BOTHY);
    let words = shell(running, "cat /var/lib/bothy/crash/*/*")?;
    ensure!(words.contains("sysrq triggered crash"), "what was kept: {words}");
    ensure!(shell(running, "ls /sys/fs/pstore")?.trim().is_empty(), "pstore is not empty");
    let status = shell(running, "cat /run/bothy/status.json")?;
    ensure!(status.contains("the kernel crashed in the last run (Kernel panic"), "{status}");
    let other = shell(running, SEED)?;
    ensure!(other.contains("600 512") && other.lines().next() != seed.lines().next(), "the seed is {other}");
    Ok(())
}
