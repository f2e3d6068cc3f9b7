//! Many functions on a small machine: a hundred in 512 MB, of which sixty run at once and the others are started by their
//! calls.

/// Minutes of deployments: longer than every change should wait.
mod long {
    use std::time::{Duration, Instant};

    use anyhow::{Context, Result, ensure};
    use qemu_tests::{Case, Inside, Process, Running, SHELL_IMAGE, shell, shell_case};
    use serde_json::Value;

    const MEMORY_MIB: u32 = 512;
    const ALL: usize = 100;
    const AT_ONCE: usize = 60;

    #[test]
    fn in_a_small_memory() {
        shell_case("hundred", |case| {
            let disk = case.used_disk()?;
            let mut machine = case.machine(&disk)?;
            machine.memory_mib = MEMORY_MIB;
            let mut running = case.boot(&machine)?;
            let gateway = case.gateway(&running);
            let names: Vec<String> = (0..ALL).map(|number| format!("f{number}")).collect();
            let (at_once, on_call) = names.split_at(AT_ONCE);
            let began = Instant::now();
            for name in on_call {
                gateway.deploy(name, SHELL_IMAGE)?;
                gateway.scale(name, 0)?;
            }
            for name in at_once {
                gateway.deploy(name, SHELL_IMAGE)?;
            }
            case.time(
                format!("{ALL} functions deployed, {} of them scaled to none", on_call.len()),
                began.elapsed(),
            );
            // The one that was there before runs, too.
            ensure!(available(case, &mut running)? == AT_ONCE + 1);
            for name in at_once {
                answers(case, &mut running, name)?;
            }
            let before = Inside::look(&mut running)?;
            println!("{}", memory(&mut running)?);
            let began = Instant::now();
            let mut slowest = Duration::ZERO;
            for name in on_call {
                let called = Instant::now();
                answers(case, &mut running, name)?;
                slowest = slowest.max(called.elapsed());
            }
            case.time(format!("{} woken one after the other", on_call.len()), began.elapsed());
            case.time("of these the slowest".to_owned(), slowest);
            println!("{}", memory(&mut running)?);
            ensure!(available(case, &mut running)? == ALL + 1);
            // Nobody had to go for that.
            let after = Inside::look(&mut running)?;
            let there = |process: &Process| {
                after.processes.iter().any(|p| (p.pid, p.started) == (process.pid, process.started))
            };
            let of_them = |process: &&Process| at_once.iter().any(|name| process.is_of(name));
            let gone: Vec<_> =
                before.processes.iter().filter(of_them).filter(|process| !there(process)).collect();
            ensure!(gone.is_empty(), "these ended meanwhile: {gone:?}");
            ensure!(after.is_well(), "the machine is not well: {}", after.status);
            case.power_off(running)
        });
    }

    /// It says what it is told.
    fn answers(case: &mut Case, running: &mut Running, name: &str) -> Result<()> {
        let answer = case.gateway(running).call(name, &format!("echo {name}"))?;
        ensure!(answer.status == 200 && answer.body == format!("{name}\n"), "{name}: {answer:?}");
        Ok(())
    }

    /// How many functions have an instance that answers.
    fn available(case: &mut Case, running: &mut Running) -> Result<usize> {
        let list = case.status(running, "/system/functions", 200)?.body;
        let list: Vec<Value> = serde_json::from_str(&list).context("the list of functions is no JSON")?;
        Ok(list.iter().filter(|function| function["availableReplicas"] == 1).count())
    }

    /// What the kernel says of the memory.
    fn memory(running: &mut Running) -> Result<String> {
        Ok(shell(running, "grep -E '^Mem(Total|Available)' /proc/meminfo")?
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "))
    }
}
