//! Memory: what a function costs beyond its own processes.

use std::fs;
use std::time::Duration;

use crate::figure::Figure;
use crate::lab::Lab;
use crate::{PROGRAM, delete, deploy, scale};

/// Functions that run while the cost of one is measured.
const RUNNING: usize = 20;
/// Functions that exist while the gateway is measured.
const DEPLOYED: usize = 100;

/// Cost of one idle function, of one that is prepared, and the gateway's size with many.
pub async fn figures(lab: &Lab) -> [Figure; 3] {
    let settle = || tokio::time::sleep(Duration::from_secs(2));
    deploy(lab, "idle-0").await;
    settle().await;
    let one = beyond_functions();
    for number in 1..=RUNNING {
        deploy(lab, &format!("idle-{number}")).await;
    }
    settle().await;
    let idle = (beyond_functions() - one) / RUNNING as f64;
    // As many as the gateway prepares by default.
    for number in 1..=16 {
        scale(lab, &format!("idle-{number}"), 0).await;
    }
    for number in 17..=RUNNING {
        delete(lab, &format!("idle-{number}")).await;
    }
    settle().await;
    let prepared = (beyond_functions() - one) / 16.0;
    for number in RUNNING + 1..=DEPLOYED {
        let name = format!("idle-{number}");
        deploy(lab, &name).await;
        scale(lab, &name, 0).await;
    }
    settle().await;
    let gateway = lab.processes("/stack").into_iter().map(|pid| status(pid, "VmRSS:")).sum();
    [
        Figure::alone("idle_function_cost", idle, "bytes"),
        Figure::alone("prepared_function_cost", prepared, "bytes"),
        Figure::alone("gateway_rss_100", gateway, "bytes"),
    ]
}

/// Memory of everything that is neither a function's process nor this one: proportional, so that shared pages count once.
fn beyond_functions() -> f64 {
    let numbers =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let counts = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        *pid != std::process::id() && !line.starts_with(PROGRAM.as_bytes())
    };
    let pss = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        text.lines().find_map(kilobytes_of("Pss:")).unwrap_or(0.0)
    };
    numbers.filter(counts).map(pss).sum()
}

/// A line of a process's status, in bytes.
pub fn status(pid: i32, field: &'static str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines().find_map(kilobytes_of(field)).unwrap_or(0.0)
}

/// The bytes of a line such as `Pss:  12 kB`.
fn kilobytes_of(field: &'static str) -> impl Fn(&str) -> Option<f64> {
    move |line| {
        Some(line.strip_prefix(field)?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
    }
}
