//! `bothyctl`: at the machine's console and from another computer through the gateway, the same answers.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use image::qemu::READY;
use qemu_tests::{PASSWORD, Running, SAMPLE_FUNCTION, SAMPLE_IMAGE, call_is_done, call_later, case};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

/// `bothyctl --host`, run on this computer: the device's own program, which is static.
struct Remote {
    program: PathBuf,
    host: String,
    home: PathBuf,
}

impl Remote {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("HOME", &self.home).env("BOTHY_HOST", &self.host).stdin(Stdio::null());
        command.env("BOTHY_PASSWORD", PASSWORD).arg("bothyctl").args(line.split(' '));
        command
    }

    fn run(&self, line: &str) -> Result<Output> {
        self.command(line).output().with_context(|| format!("start {}", self.program.display()))
    }

    fn json(&self, line: &str) -> Result<Vec<Value>> {
        let output = self.run(line)?;
        ensure!(output.status.success(), "{line}: {output:?}");
        lines(&String::from_utf8(output.stdout)?)
    }
}

fn lines(text: &str) -> Result<Vec<Value>> {
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("{line:?} is no JSON")))
        .collect()
}

/// Logs in at the console.
fn log_in(running: &mut Running) -> Result<()> {
    let mark = running.console().mark();
    running.console().send(b"admin\n")?;
    running.console().wait("password: ", mark, LIMIT)?;
    running.console().send(format!("{PASSWORD}\n").as_bytes())?;
    running.console().wait("bothyctl> ", mark, LIMIT)?;
    Ok(())
}

/// What a command prints at the console's prompt.
fn local(running: &mut Running, line: &str) -> Result<Vec<String>> {
    let before = running.console().mark();
    running.console().send(format!("{line}\n").as_bytes())?;
    running.console().wait(&format!("^bothyctl> {line}$"), before, LIMIT)?;
    // The line that was typed is whole: what is unfinished behind it is the next prompt.
    running.console().wait("^bothyctl> $", before, LIMIT)?;
    let printed = running.console().lines(before).into_iter().map(|line| line.text);
    Ok(printed.skip_while(|text| !text.starts_with("bothyctl> ")).skip(1).collect())
}

fn pick(values: &[Value], keys: &[&str]) -> Vec<Value> {
    values.iter().map(|value| keys.iter().map(|key| value[key].clone()).collect()).collect()
}

#[test]
fn says_the_same_here_and_from_afar() {
    case("bothyctl", |case| {
        let disk = case.used_disk()?;
        let mut running = case.up(&disk)?;
        let program = case.artifacts().programs.join("init");
        let host = format!("http://127.0.0.1:{}", running.port());
        let remote = Remote { program, host, home: case.folder().to_owned() };
        case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        log_in(&mut running)?;

        for line in ["plan --json", "config --json", "config --reveal --json", "credentials --json"] {
            let (here, there) = (lines(&local(&mut running, line)?.join("\n"))?, remote.json(line)?);
            ensure!(!here.is_empty() && here == there, "{line}: {here:#?}\n{there:#?}");
            let shown = format!("{here:?}").contains(PASSWORD);
            ensure!(shown == (line.contains("reveal") || line.contains("credentials")), "{line}: {here:#?}");
        }
        let gateway = case.gateway(&running);
        let call = call_later(&mut running, &gateway, SAMPLE_FUNCTION, "Bothy")?;
        call_is_done(&mut running, &gateway, &call, LIMIT)?;
        let call = format!("queue status {call} --json");
        let same = [
            (call.as_str(), vec!["callId", "state", "function", "queue", "attempts", "status", "since"]),
            ("status --json", vec!["hostname", "address", "healthy", "network", "data", "config"]),
            ("services --json", vec!["name", "state", "pid", "restarts", "since_ms"]),
            ("logs --boot 0 --lines 5 --service nats --json", vec!["__CURSOR", "MESSAGE", "_PID"]),
        ];
        for (line, keys) in same {
            let here = lines(&local(&mut running, line)?.join("\n"))?;
            let (here, there) = (pick(&here, &keys), pick(&remote.json(line)?, &keys));
            ensure!(!here.is_empty() && here == there, "{line}: {here:#?}\n{there:#?}");
        }
        let names = |values: Vec<Value>| {
            let groups =
                values.first().and_then(|sample| sample["groups"].as_array().cloned()).unwrap_or_default();
            let mut names: Vec<String> = groups.iter().map(|group| group["name"].to_string()).collect();
            names.sort();
            names
        };
        let here = names(lines(&local(&mut running, "top --json")?.join("\n"))?);
        ensure!(
            here == names(remote.json("top --json")?) && here.contains(&"\"figlet\"".to_owned()),
            "{here:?}"
        );

        // What people see.
        for (line, word) in [
            ("status", "healthy"),
            ("services", "queue-worker  ready"),
            ("services gateway", "ENDED"),
            ("queue list", "no dead letters"),
            ("top --once", "figlet.openfaas-fn"),
            ("config", "hostname"),
            ("plan", "pid 1, start"),
            ("help", "poweroff"),
        ] {
            let shown = local(&mut running, line)?;
            ensure!(shown.iter().any(|text| text.contains(word)), "{line}: {shown:#?}");
        }
        local(&mut running, "services x").and_then(|shown| {
            ensure!(shown.iter().any(|text| text.contains("there are: journald")), "{shown:?}");
            Ok(())
        })?;
        refusals(&remote, case.folder())?;
        follow(&remote, &|| case.gateway(&running).deploy("other", SAMPLE_IMAGE).map_err(Into::into))?;

        let asked = remote.run("reboot")?;
        ensure!(asked.status.code() == Some(2), "a reboot without a question: {asked:?}");
        let mark = running.console().mark();
        let asked = remote.run("reboot --yes")?;
        ensure!(asked.status.success(), "{asked:?}");
        running.console().wait("^bothy: reboot", mark, LIMIT)?;
        running.console().wait(READY, mark, Duration::from_secs(300))?;
        let boots = remote.json("logs --boot -1 --lines 1 --json")?;
        ensure!(boots.len() == 1, "the boot before has no last line: {boots:?}");
        let asked = remote.run("poweroff --yes")?;
        ensure!(asked.status.success(), "{asked:?}");
        running.wait_end(LIMIT)?;
        Ok(())
    });
}

/// Wrong passwords, wrong words, and what is kept of right ones.
fn refusals(remote: &Remote, folder: &Path) -> Result<()> {
    let said = |command: &mut Command| -> Result<(Option<i32>, String)> {
        let output = command.output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let wrong = said(remote.command("status").env("BOTHY_PASSWORD", "wrong"))?;
    ensure!(wrong.0 == Some(1) && wrong.1.contains("wrong user or password for admin"), "{wrong:?}");
    let nobody = said(remote.command("status").env_remove("BOTHY_PASSWORD"))?;
    ensure!(nobody.0 == Some(2) && nobody.1.contains("bothyctl login"), "{nobody:?}");
    let secure = said(remote.command("status").env("BOTHY_HOST", "https://127.0.0.1"))?;
    ensure!(secure.0 == Some(2) && secure.1.contains("no TLS yet"), "{secure:?}");
    let unknown = said(&mut remote.command("services x"))?;
    ensure!(unknown.0 == Some(1) && unknown.1.contains("there are: journald"), "{unknown:?}");
    let field = said(&mut remote.command("logs --lines 1 --file=/etc/passwd"))?;
    ensure!(field.0 == Some(2), "{field:?}");

    let password = folder.join("password");
    std::fs::write(&password, format!("{PASSWORD}\n"))?;
    let login = format!("login --password-file {}", password.display());
    let login = said(remote.command(&login).env_remove("BOTHY_PASSWORD"))?;
    ensure!(login.0 == Some(0), "{login:?}");
    let kept = std::fs::metadata(folder.join(".config/bothy/credentials.toml"))?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&kept.permissions()) & 0o777;
    ensure!(mode == 0o600, "credentials are kept with mode {mode:o}");
    let later = said(remote.command("status").env_remove("BOTHY_PASSWORD"))?;
    ensure!(later.0 == Some(0), "{later:?}");
    Ok(())
}

/// `logs --follow` gives a line as it comes; when the client goes, the reader of the journal goes too.
fn follow(remote: &Remote, deploy: &dyn Fn() -> Result<()>) -> Result<()> {
    let readers = |remote: &Remote| -> Result<u64> {
        let sample = remote.json("top --interval 0.1 --json")?;
        let groups =
            sample.first().and_then(|sample| sample["groups"].as_array()).cloned().unwrap_or_default();
        let helpers = groups.iter().find(|group| group["name"] == "helpers");
        Ok(helpers.and_then(|group| group["pids"].as_u64()).unwrap_or(0))
    };
    let mut child = remote.command("logs --follow --function other --json").stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("no output")?;
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).all(|l| sender.send(l).is_ok())
    });
    let outcome = (|| {
        deploy()?;
        let line = lines.recv_timeout(LIMIT).context("no line of the function came")?;
        let line: Value = serde_json::from_str(&line)?;
        ensure!(line["BOTHY_FUNCTION"] == "other" && line["MESSAGE"].is_string(), "{line}");
        ensure!(readers(remote)? > 0, "nobody reads the journal");
        Ok(())
    })();
    child.kill()?;
    child.wait()?;
    outcome?;
    let began = Instant::now();
    while readers(remote)? > 0 {
        ensure!(began.elapsed() < LIMIT, "the reader of the journal outlives its client");
    }
    Ok(())
}
