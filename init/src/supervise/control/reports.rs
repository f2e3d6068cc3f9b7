//! Reports about services, phases and load.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::super::memory;
use super::super::phases::plan as lists;
use super::{Answer, Stop};
use crate::board::{Board, Service};
use crate::cgroup::Group;
use crate::usage::{self, Usage};

/// Shortest and longest sample.
const INTERVAL_MS: (u64, u64) = (100, 60_000);

/// A service and what it uses.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    service: Service,
    #[serde(flatten)]
    usage: Usage,
}

/// All services, or one.
pub(super) async fn services(board: &Board, name: Option<&str>, answer: &mut Answer) -> Result<(), Stop> {
    let all = board.status().services;
    let names: Vec<String> = all.iter().map(|service| service.name.clone()).collect();
    let wanted = |service: &Service| name.is_none_or(|name| service.name == name);
    let mut any = false;
    for service in all.into_iter().filter(wanted) {
        any = true;
        let report = Report { usage: Usage::of(&Group::at(&format!("system/{}", service.name))), service };
        answer.line(&report).await?;
    }
    match name {
        Some(name) if !any => {
            Err(Stop::Error(format!("there is no service {name}; there are: {}", names.join(", "))))
        }
        _ => Ok(()),
    }
}

/// The lists of phases.
pub(super) async fn plan(answer: &mut Answer) -> Result<(), Stop> {
    for list in lists() {
        answer.line(&list).await?;
    }
    Ok(())
}

/// Samples of what everything uses.
pub(super) async fn top(interval_ms: u64, count: u64, answer: &mut Answer) -> Result<(), Stop> {
    let interval = Duration::from_millis(interval_ms.clamp(INTERVAL_MS.0, INTERVAL_MS.1));
    let mut before = counted().await;
    let mut number = 0;
    while count == 0 || number < count {
        tokio::time::sleep(interval).await;
        let now = counted().await;
        let elapsed = now.1.saturating_duration_since(before.1);
        let (used, total) = memory::used_and_total();
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load: Vec<f64> = load.split(' ').take(3).filter_map(|word| word.parse().ok()).collect();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let sample = json!({
            "interval_ms": u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            "cpus": cpus,
            "load": load,
            "memory_used": used,
            "memory_total": total,
            "groups": usage::rows(&before.0, &now.0, elapsed),
        });
        answer.line(&sample).await?;
        before = now;
        number += 1;
    }
    Ok(())
}

/// In a thread: hundreds of functions are thousands of files.
async fn counted() -> (Vec<usage::Counted>, Instant) {
    let now = spawn_blocking(|| (usage::count(), Instant::now())).await;
    now.unwrap_or_else(|_| (Vec::new(), Instant::now()))
}
