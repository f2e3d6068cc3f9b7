//! Why an instance's process ended, as far as the kernel tells.

use super::group;
use super::instance::Instance;

/// In words, for the log and for callers who are turned away. To be asked before the instance is removed: the kernel's
/// figures go with its cgroup.
pub fn of(root: &str, instance: &Instance) -> &'static str {
    let path = group::folder(root, &instance.key, instance.replica).map(|group| group.join("memory.events"));
    tell(&path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default())
}

/// From `memory.events` (cgroup-v2.rst): `oom` counts how often the group's own limit was hit without a way out,
/// `oom_kill` the processes of it that were killed, for that or for a limit above.
fn tell(events: &str) -> &'static str {
    let count = |key: &str| {
        let value = events.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    match (count("oom_kill"), count("oom")) {
        (0, _) => "its process ended",
        (_, 0) => "killed because all functions together took more memory than there is",
        _ => "killed because it took more memory than its limit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_in_words() {
        let events = "low 0\nhigh 0\nmax 31\noom 1\noom_kill 2\noom_group_kill 1\n";
        assert!(tell(events).contains("than its limit"));
        assert!(tell(&events.replace("oom 1", "oom 0")).contains("all functions"));
        assert_eq!(tell(&events.replace("oom_kill 2", "oom_kill 0")), "its process ended");
        assert_eq!(tell(""), "its process ended");
    }
}
