//! A machine's life with all its writes, recorded once for an image and cut at as many places as one likes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use image::qemu::{Disk, Writes};
use serde_json::json;

use crate::history::{Accepted, Act, History};
use crate::{Case, Running, SAMPLE_FUNCTION, SAMPLE_IMAGE, call_later};

/// Number of what is done below: another number makes older recordings worthless.
const SCENARIO: &str = "2";
/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(120);

/// The recording.
pub struct Recording {
    /// The disk before the first boot.
    pub disk: Disk,
    /// Every write from then on.
    pub writes: Writes,
    /// What was done meanwhile.
    pub history: History,
}

impl Recording {
    /// The one of this image, made now unless an earlier run left it. Whoever comes second waits for the first.
    ///
    /// # Errors
    /// The machine does not do what it should, even without a power cut.
    pub fn of(case: &mut Case, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let lock = File::create(folder.join("lock"))?;
        lock.lock()?;
        let places = Places::below(folder);
        let image = format!("{SCENARIO} {}", case.artifacts().command_line);
        if fs::read_to_string(&places.image).is_ok_and(|made| made == image) {
            return places.open();
        }
        let _ = fs::remove_file(&places.image);
        let _ = fs::remove_file(folder.join("results"));
        let history = places.record(case)?;
        fs::write(&places.history, serde_json::to_vec_pretty(&history)?)?;
        fs::write(&places.image, image)?;
        places.open()
    }
}

struct Places {
    disk: PathBuf,
    writes: PathBuf,
    history: PathBuf,
    image: PathBuf,
}

impl Places {
    fn below(folder: &Path) -> Self {
        let file = |name| folder.join(name);
        Self {
            disk: file("before.img"),
            writes: file("writes"),
            history: file("history.json"),
            image: file("image.of"),
        }
    }

    fn open(&self) -> Result<Recording> {
        let text = fs::read(&self.history).with_context(|| format!("read {}", self.history.display()))?;
        Ok(Recording {
            disk: Disk::open(&self.disk)?,
            writes: Writes::open(&self.writes)?,
            history: serde_json::from_slice(&text)?,
        })
    }

    /// First boot, deployments, an update, a removal, work, shutdown; and asynchronous calls all the time.
    fn record(&self, case: &mut Case) -> Result<History> {
        let disk = case.disk(None)?;
        disk.copy(&self.disk)?;
        let mut history = History { disk_bytes: fs::metadata(disk.path())?.len(), ..History::default() };
        let length = || -> Result<u64> { Ok(fs::metadata(&self.writes)?.len()) };
        let mut machine = case.machine(&disk)?;
        machine.writes = Some(self.writes.clone());
        let note = |history: &mut History, what: &str, function: Option<(&str, Option<&str>)>, began| {
            let step = function.and_then(|(_, step)| step.map(str::to_owned));
            let function = function.map(|(name, _)| name.to_owned());
            let answered = length()?;
            history.acts.push(Act { what: what.to_owned(), function, step, began, answered });
            Ok::<_, anyhow::Error>(())
        };
        let mut running = case.boot(&machine)?;
        note(&mut history, "first boot", None, 0)?;
        let gateway = case.gateway(&running);
        let queue = |history: &mut History, running: &mut Running, function: &str, calls: usize| {
            for _ in 0..calls {
                let id = call_later(running, &gateway, function, "Bothy")?;
                let function = function.to_owned();
                history.calls.push(Accepted { id, function, answered: length()? });
            }
            Ok::<_, anyhow::Error>(())
        };
        let function = |name: &str, step: &str| json!({ "service": name, "image": SAMPLE_IMAGE, "labels": { "step": step } });
        for name in [SAMPLE_FUNCTION, "banner"] {
            let began = length()?;
            gateway.deploy_document(&function(name, "1"))?;
            note(&mut history, &format!("deploy {name}"), Some((name, Some("1"))), began)?;
            case.answer(&mut running, name, "Bothy")?;
            let began = length()?;
            queue(&mut history, &mut running, name, 2)?;
            note(&mut history, &format!("calls of {name}"), None, began)?;
        }
        queue(&mut history, &mut running, "banner", 1)?;
        let client = gateway.client();
        let began = length()?;
        let document = function("banner", "2").to_string();
        let answer = client.request("PUT", "/system/functions", Some(&document), REQUEST)?;
        ensure!([200, 202].contains(&answer.status), "update: {} {}", answer.status, answer.body);
        note(&mut history, "update banner", Some(("banner", Some("2"))), began)?;
        let began = length()?;
        let mut short = function("short", "1");
        // What is left to call when it is gone is given up soon.
        short["annotations"] =
            json!({ "com.openfaas.retry.attempts": "2", "com.openfaas.retry.min_wait": "1s" });
        gateway.deploy_document(&short)?;
        note(&mut history, "deploy short", Some(("short", Some("1"))), began)?;
        let began = length()?;
        queue(&mut history, &mut running, "short", 1)?;
        note(&mut history, "a call of short", None, began)?;
        let began = length()?;
        let body = json!({ "functionName": "short" }).to_string();
        let answer = client.request("DELETE", "/system/functions", Some(&body), REQUEST)?;
        ensure!([200, 202].contains(&answer.status), "remove: {} {}", answer.status, answer.body);
        note(&mut history, "remove short", Some(("short", None)), began)?;
        let began = length()?;
        for _ in 0..4 {
            queue(&mut history, &mut running, "banner", 1)?;
            for _ in 0..5 {
                case.answer(&mut running, "banner", "Bothy")?;
            }
        }
        note(&mut history, "work", None, began)?;
        let began = length()?;
        std::thread::sleep(Duration::from_secs(6));
        note(&mut history, "rest", None, began)?;
        let began = length()?;
        queue(&mut history, &mut running, SAMPLE_FUNCTION, 2)?;
        note(&mut history, "last calls", None, began)?;
        let began = length()?;
        case.power_off(running)?;
        note(&mut history, "shutdown", None, began)?;
        history.data_start = disk.extent("data")?.0;
        Ok(history)
    }
}
