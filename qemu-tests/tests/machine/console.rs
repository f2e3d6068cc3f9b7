//! The machine's console: the login, and the debug flavour's shell behind it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use qemu_tests::{Mark, PASSWORD, Running, case, shell_case};

const LIMIT: Duration = Duration::from_secs(120);

/// Types something and waits for an answer.
fn type_and_wait(running: &mut Running, typed: &str, answer: &str) -> Result<Mark> {
    let mark = running.console().mark();
    running.console().send(format!("{typed}\n").as_bytes())?;
    running.console().wait(answer, mark, LIMIT)?;
    Ok(mark)
}

#[test]
fn login_needs_the_password_and_there_is_no_shell() {
    case("console", |case| {
        let disk = case.used_disk()?;
        let mut running = case.up(&disk)?;
        type_and_wait(&mut running, "", "^memory: used=[0-9]+ pss=[0-9]+ uptime=[0-9]+$")?;
        for (user, password) in [("admin", "wrong"), ("root", PASSWORD)] {
            let mark = type_and_wait(&mut running, user, "password: ")?;
            type_and_wait(&mut running, password, "login refused, the next one is possible in [0-9]+ s")?;
            let shown = running.console().lines(mark);
            ensure!(
                !shown.iter().any(|line| line.text.contains(password)),
                "the password was shown: {shown:?}"
            );
            running.console().wait("type a user name", mark, LIMIT)?;
        }
        type_and_wait(&mut running, "admin", "password: ")?;
        type_and_wait(&mut running, PASSWORD, "bothyctl> ")?;
        type_and_wait(&mut running, "status", "healthy")?;
        type_and_wait(&mut running, "shell", "no shell in this image")?;
        // A serial line is slower than a program that ends: what it said last is not lost with the session.
        type_and_wait(&mut running, "help\nhelp\nexit", "^(bothyctl> )?The session has ended.$")?;
        // What is typed before the session is gone goes with it.
        let mark = running.console().mark();
        let began = Instant::now();
        while running.console().find("^memory: used=", mark)?.is_none() {
            ensure!(began.elapsed() < LIMIT, "Enter shows nothing after a session");
            running.console().send(b"\n")?;
            std::thread::sleep(Duration::from_secs(2));
        }
        case.power_off(running)
    });
}

#[test]
fn the_debug_flavour_has_a_root_shell() {
    shell_case("console_shell", |case| {
        let disk = case.used_disk()?;
        let mut running = case.up(&disk)?;
        let shell = running.shell("id -u; echo \"$HOME\"; cat /proc/self/cgroup; exit 7")?;
        ensure!(shell.status == 7 && shell.output == "0\n/root\n0::/system/console\n", "{shell:?}");
        let long = "0123456789'\n".repeat(500);
        let shell = running.shell(&format!("printf %s \"{long}\""))?;
        ensure!(shell.status == 0 && shell.output == long, "{shell:?}");
        // Lines of the kernel in between do no harm.
        let noisy = "for i in $(seq 1 40); do echo \"<0>noise $i\" >/dev/kmsg; echo line $i; done";
        let shell = running.shell(noisy)?;
        let wanted: String = (1..=40).map(|i| format!("line {i}\n")).collect();
        ensure!(shell.status == 0 && shell.output == wanted, "{shell:?}");
        // A supervisor that dies leaves the session alone.
        let supervisor = |running: &mut Running| {
            running.shell("ps -o pid,args | awk '/ [i]nit supervise/ { print $1 }' | grep .")
        };
        let before = supervisor(&mut running)?;
        let mark = running.console().mark();
        let killed = running.shell(&format!("kill -9 {}; sleep 3", before.output.trim()))?;
        let after = supervisor(&mut running)?;
        ensure!(
            killed.status == 0 && after.status == 0 && after != before,
            "{before:?} {killed:?} {after:?}"
        );
        ensure!(running.console().find("password: ", mark)?.is_none(), "the session had ended");
        case.power_off(running)
    });
}
