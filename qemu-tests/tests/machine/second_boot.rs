//! What was deployed and what was written stays.

use anyhow::{Context, Result, ensure};
use qemu_tests::{BOTHY, SAMPLE_FUNCTION, SAMPLE_IMAGE, case, journal};
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

#[test]
fn keeps_functions_and_journal() {
    case("second_boot", |case| {
        let disk = case.disk(None)?;
        let mut running = case.up(&disk)?;
        let gateway = case.gateway(&running);
        gateway.deploy(SAMPLE_FUNCTION, SAMPLE_IMAGE)?;
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
        case.power_off(running)?;

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
        ensure!(boots.len() == 2, "the journal has {} boots: {boots:?}", boots.len());

        // What a function says, here as it starts, is in the journal under its name, from both boots.
        let of_banner = ["BOTHY_FUNCTION=banner", "BOTHY_NAMESPACE=openfaas-fn", "--output=json"];
        let lines = journal(artifacts, &disk, folder, &of_banner)?;
        let lines: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let boots: std::collections::BTreeSet<_> =
            lines.iter().filter_map(|l| l["_BOOT_ID"].as_str()).collect();
        ensure!(boots.len() == 2, "lines of the function banner: {lines:#?}");
        let identified =
            |line: &Value| line["SYSLOG_IDENTIFIER"] == "openfaas-fn:banner" && line["MESSAGE"].is_string();
        ensure!(lines.iter().all(identified), "lines without their function's name: {lines:#?}");
        Ok(())
    });
}

/// Ctrl-Alt-Del: the machine ends everything in good order and comes back by itself.
#[test]
fn reboots_in_good_order() {
    case("reboot", |case| {
        let disk = case.disk(None)?;
        let mut running = case.up(&disk)?;
        case.gateway(&running).deploy(SAMPLE_FUNCTION, SAMPLE_IMAGE)?;
        case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        let mark = running.console().mark();
        let keys: Vec<Value> =
            ["ctrl", "alt", "delete"].iter().map(|key| json!({"type": "qcode", "data": key})).collect();
        running.monitor().execute("send-key", json!({ "keys": keys }))?;
        let limit = std::time::Duration::from_secs(300);
        running.console().wait("^bothy: reboot", mark, limit)?;
        running.console().wait(image::qemu::READY, mark, limit)?;
        let answer = case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        ensure!(answer == BOTHY, "figlet wrote:\n{answer}");
        case.power_off(running)?;
        // The kernel of the second boot found nothing to repair: the first one had unmounted everything.
        let said = journal(case.artifacts(), &disk, case.folder(), &["--dmesg", "--output=cat"])?;
        ensure!(!said.contains("recovery complete"), "the reboot left a journal to replay");
        Ok(())
    });
}

/// A reset without a warning, QEMU keeps running: the machine must come back.
#[test]
fn comes_back_after_a_reset() {
    case("reset", |case| {
        let disk = case.disk(None)?;
        let mut running = case.up(&disk)?;
        case.gateway(&running).deploy(SAMPLE_FUNCTION, SAMPLE_IMAGE)?;
        case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        // As a watchdog does it: without a warning.
        let mark = running.console().mark();
        running.monitor().execute("system_reset", json!({}))?;
        running.console().wait(image::qemu::READY, mark, std::time::Duration::from_secs(300))?;
        let answer = case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        ensure!(answer == BOTHY, "figlet wrote:\n{answer}");
        case.power_off(running)
    });
}
