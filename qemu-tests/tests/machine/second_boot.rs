//! What was deployed and what was written stays: over a reset without a warning, the keyboard's reboot, and the power
//! button.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use image::qemu::READY;
use qemu_tests::{BOTHY, SAMPLE_FUNCTION, SAMPLE_IMAGE, assert_clean, case, journal};
use serde_json::{Value, json};

/// The gateway's list of functions by name, without what changes by itself.
fn functions(text: &str) -> Result<Vec<Value>> {
    let mut list: Vec<Value> = serde_json::from_str(text).context("the list of functions is no JSON")?;
    for function in &mut list {
        let fields = function.as_object_mut().context("a function is no object")?;
        for changing in ["replicas", "availableReplicas", "invocationCount", "usage", "createdAt"] {
            fields.remove(changing);
        }
    }
    list.sort_by_key(|function| function["name"].to_string());
    Ok(list)
}

/// How long a machine may take that starts anew by itself.
const AGAIN: Duration = Duration::from_secs(300);

#[test]
fn keeps_functions_and_journal() {
    case("second_boot", |case| {
        let disk = case.used_disk()?;
        let mut running = case.up(&disk)?;
        let gateway = case.gateway(&running);
        gateway.deploy_document(&json!({
            "service": "banner",
            "image": SAMPLE_IMAGE,
            "envProcess": "figlet -w 200",
            "envVars": { "PURPOSE": "second boot" },
            "labels": { "team": "farm" },
            "annotations": { "topic": "hay" },
        }))?;
        case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        case.answer(&mut running, "banner", "Bothy")?;
        let before = functions(&case.status(&mut running, "/system/functions", 200)?.body)?;
        ensure!(before.len() == 2, "two functions were deployed, the list has {before:?}");

        // As a watchdog does it: without a warning.
        let mark = running.console().mark();
        running.monitor().execute("system_reset", json!({}))?;
        running.console().wait(READY, mark, AGAIN)?;
        let answer = case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        ensure!(answer == BOTHY, "after a reset figlet wrote:\n{answer}");

        // Ctrl-Alt-Del: everything ends in good order.
        let mark = running.console().mark();
        let keys: Vec<Value> =
            ["ctrl", "alt", "delete"].iter().map(|key| json!({"type": "qcode", "data": key})).collect();
        running.monitor().execute("send-key", json!({ "keys": keys }))?;
        running.console().wait("^bothy: reboot", mark, AGAIN)?;
        running.console().wait(READY, mark, AGAIN)?;
        let answer = case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        ensure!(answer == BOTHY, "after a reboot figlet wrote:\n{answer}");
        case.power_off(running)?;
        assert_clean(case.artifacts(), &disk, case.folder())?;

        let mut running = case.up(&disk)?;
        for function in [SAMPLE_FUNCTION, "banner"] {
            let answer = case.answer(&mut running, function, "Bothy")?;
            ensure!(answer == BOTHY, "{function} wrote:\n{answer}");
        }
        let after = functions(&case.status(&mut running, "/system/functions", 200)?.body)?;
        ensure!(before == after, "the functions were {before:#?}\nand are now {after:#?}");
        case.power_off(running)?;

        let (artifacts, folder) = (case.artifacts(), case.folder());
        let boots = journal(artifacts, &disk, folder, &["--list-boots", "--output=json"])?;
        let boots: Vec<Value> = serde_json::from_str(&boots).context("journalctl printed no JSON")?;
        // What was not synced is lost with a reset: of the boot before it there need not be anything.
        ensure!(boots.len() >= 4, "the journal has {} boots: {boots:?}", boots.len());
        // The kernels of the last two found nothing to repair: those before them had unmounted everything.
        for boot in ["--boot=-1", "--boot=0"] {
            let said = journal(artifacts, &disk, folder, &["--dmesg", boot, "--output=cat"])?;
            ensure!(!said.contains("recovery complete"), "{boot} had a journal to replay");
        }

        // What a function says, here as it starts, is in the journal under its name, from all of them.
        let of_banner = ["BOTHY_FUNCTION=banner", "BOTHY_NAMESPACE=openfaas-fn", "--output=json"];
        let lines = journal(artifacts, &disk, folder, &of_banner)?;
        let lines: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let boots: std::collections::BTreeSet<_> =
            lines.iter().filter_map(|l| l["_BOOT_ID"].as_str()).collect();
        ensure!(boots.len() >= 3, "lines of the function banner: {lines:#?}");
        let identified =
            |line: &Value| line["SYSLOG_IDENTIFIER"] == "openfaas-fn:banner" && line["MESSAGE"].is_string();
        ensure!(lines.iter().all(identified), "lines without their function's name: {lines:#?}");
        Ok(())
    });
}
