//! Why an instance's process ended, as far as the kernel tells.

use super::group;
use super::instance::Instance;

/// In words, for the log and for callers who are turned away. To be asked before the instance is removed: the kernel's
/// figures go with its cgroup.
pub fn of(root: &str, instance: &Instance, status: Option<u32>) -> String {
    let path = group::folder(root, &instance.key, instance.replica).map(|group| group.join("memory.events"));
    let events = path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    match (killed(&events), status) {
        (Some(cause), _) => cause.to_owned(),
        (None, None) => "its process ended".to_owned(),
        // As shells and containerd count.
        (None, Some(status @ 129..=192)) => format!("its process was ended by signal {}", status - 128),
        (None, Some(status)) => format!("its process ended with status {status}"),
    }
}

/// From `memory.events` (cgroup-v2.rst): `oom` counts how often the group's own limit was hit without a way out,
/// `oom_kill` the processes of it that were killed, for that or for a limit above.
fn killed(events: &str) -> Option<&'static str> {
    let count = |key: &str| {
        let value = events.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    match (count("oom_kill"), count("oom")) {
        (0, _) => None,
        (_, 0) => Some("killed because all functions together took more memory than there is"),
        _ => Some("killed because it took more memory than its limit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_in_words() {
        let events = "low 0\nhigh 0\nmax 31\noom 1\noom_kill 2\noom_group_kill 1\n";
        assert!(killed(events).unwrap().contains("than its limit"));
        assert!(killed(&events.replace("oom 1", "oom 0")).unwrap().contains("all functions"));
        assert_eq!(killed(&events.replace("oom_kill 2", "oom_kill 0")), None);
        assert_eq!(killed(""), None);
    }

    #[test]
    fn the_status_in_words() {
        let instance = Instance {
            key: crate::key::Key::new("f", "").unwrap(),
            id: "f.0".into(),
            replica: 0,
            digest: String::new(),
            address: None,
            task: crate::containerd::Task::Stopped,
        };
        let cause = |status| of("", &instance, status);
        assert_eq!(cause(None), "its process ended");
        assert_eq!(cause(Some(3)), "its process ended with status 3");
        assert_eq!(cause(Some(137)), "its process was ended by signal 9");
    }
}
