//! Processes in a service's group that nobody watches: of a supervisor that died before it wrote them down, say.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::declaration::Kill;
use crate::cgroup::Group;
use crate::process::Identity;

/// Longest wait for what was killed to be gone.
const LIMIT: Duration = Duration::from_secs(3);

/// Kills them and waits. Of a group that must not be killed as a whole (shims start in containerd's) those that run
/// the service's own program: two containerds would fight over one folder.
pub(super) async fn end(group: &Group, kill: Kill, program: &Path) {
    match kill {
        Kill::Group => {
            group.kill();
            wait(|| !group.is_populated()).await;
        }
        Kill::Main => {
            let left: Vec<_> = running(&group.processes(), program);
            for who in &left {
                if let Some(pid) = Pid::from_raw(who.pid) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            wait(|| !left.iter().any(|who| who.is_alive())).await;
        }
    }
}

/// Those of the processes that run the program.
fn running(processes: &[i32], program: &Path) -> Vec<Identity> {
    let Ok(program) = std::fs::canonicalize(program) else { return Vec::new() };
    let runs = |pid: &&i32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
    processes.iter().filter(runs).filter_map(|pid| Identity::of(*pid)).collect()
}

async fn wait(done: impl Fn() -> bool) {
    let end = Instant::now() + LIMIT;
    while !done() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn tells_a_program_from_its_neighbours() {
        let mut sleep = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let own = std::process::id() as i32;
        let pids = [own, sleep.id() as i32];
        // The kernel shows the new program a moment after the fork.
        let end = Instant::now() + Duration::from_secs(10);
        while running(&pids, Path::new("/bin/sleep")).is_empty() && Instant::now() < end {}
        let found = running(&pids, Path::new("/bin/sleep"));
        assert_eq!(found.iter().map(|who| who.pid).collect::<Vec<_>>(), [sleep.id() as i32]);
        assert!(running(&pids, Path::new("/nonexistent")).is_empty());
        sleep.kill().unwrap();
        sleep.wait().unwrap();
    }
}
