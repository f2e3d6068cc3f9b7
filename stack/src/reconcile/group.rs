//! An instance's control group, which must not outlive it: whoever is left in it uses what all functions share, and a
//! new instance of the same number could not begin in it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use provisioning::Namespace;

use super::instance::{full_name, is_instance_name};
use super::surroundings;
use crate::error::{Error, Result};
use crate::key::Key;

/// Where cgroup2 is mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// How long killed processes may take to be gone: the kernel has to free their memory.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(10);

/// An instance's group below `root`; nothing where there are no groups.
pub fn folder(root: &str, key: &Key, replica: u32) -> Option<PathBuf> {
    let group = surroundings::cgroup(root, key, replica)?;
    Some(Path::new(CGROUPS).join(group.trim_start_matches('/')))
}

/// The group of all functions; nothing where there are no groups.
pub fn top(root: &str) -> Option<PathBuf> {
    (!root.is_empty()).then(|| Path::new(CGROUPS).join(root.trim_start_matches('/')))
}

/// The group of a namespace's instances; nothing where there are no groups.
pub fn of_namespace(root: &str, namespace: &Namespace) -> Option<PathBuf> {
    Some(top(root)?.join(namespace.as_str()))
}

/// What is promised of memory (`memory.low`) to a group.
const LOW: &str = "memory.low";

/// Lets what a namespace's instances are promised of memory count: a group gives no more than it has itself, and what it has
/// beyond that would be everybody's in it (memory_recursiveprot). To be called when one has come or gone.
pub fn keep_promises(root: &str, namespace: &Namespace) -> Result<()> {
    // Two at once could each miss the other's.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(folder) = of_namespace(root, namespace) else { return Ok(()) };
    let low = |group: &Path| {
        let text = fs::read_to_string(group.join(LOW)).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0)
    };
    let promised = fs::read_dir(&folder).into_iter().flatten().flatten().map(|group| low(&group.path()));
    let promised = promised.fold(0, u64::saturating_add);
    if low(&folder) == promised {
        return Ok(());
    }
    write(&folder.join(LOW), promised.to_string().as_bytes())
}

/// Kills whoever is left in a group and below, at once and without a race against forks (`cgroup.kill`, cgroup-v2.rst),
/// and removes it. One that is not there is fine.
pub async fn end(folder: &Path) -> Result<()> {
    let began = Instant::now();
    loop {
        if !folder.exists() {
            return Ok(());
        }
        // Not made where it is missing: an older kernel's groups go as soon as they are empty.
        let killed = write(&folder.join("cgroup.kill"), b"1");
        match remove(folder) {
            Ok(()) => return Ok(()),
            Err(source) if began.elapsed() > PATIENCE => {
                return match killed {
                    Err(Error::Write { path, source }) if source.kind() != ErrorKind::NotFound => {
                        Err(Error::Write { path, source })
                    }
                    _ => Err(Error::Write { path: folder.to_owned(), source }),
                };
            }
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// How long a group's processes may take to come to rest: one may be in the kernel, waiting for a slow disk.
const FREEZING: Duration = Duration::from_secs(5);

/// Stops all processes of a group where they are (`cgroup.freeze`, cgroup-v2.rst). Returns when they rest; those that do
/// not come to it go on, and that is an error.
pub async fn freeze(folder: &Path) -> Result<()> {
    let write = |value: &[u8]| write(&folder.join("cgroup.freeze"), value);
    write(b"1")?;
    let (began, events) = (Instant::now(), folder.join("cgroup.events"));
    loop {
        let text =
            fs::read_to_string(&events).map_err(|source| Error::Read { path: events.clone(), source })?;
        if text.lines().any(|line| line == "frozen 1") {
            return Ok(());
        }
        if began.elapsed() > FREEZING {
            write(b"0")?;
            let source = std::io::Error::new(ErrorKind::TimedOut, "its processes do not come to rest");
            return Err(Error::Write { path: folder.join("cgroup.freeze"), source });
        }
        tokio::time::sleep(AGAIN / 10).await;
    }
}

/// Lets a group's processes go on; fine where they do, and where there is no such group.
pub fn thaw(folder: &Path) -> Result<()> {
    match write(&folder.join("cgroup.freeze"), b"0") {
        Err(Error::Write { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether there are processes in a group or below.
pub fn is_populated(folder: &Path) -> bool {
    let events = fs::read_to_string(folder.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
}

/// Writes into a file of the kernel's: never makes one.
fn write(path: &Path, value: &[u8]) -> Result<()> {
    let opened = File::options().write(true).open(path);
    let written = opened.and_then(|mut file| file.write_all(value));
    written.map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Removes a group and those below, the lowest first.
fn remove(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A figure from one of a group's files that have a word and a number in each line.
pub fn figure(text: &str, word: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Groups below `root` that belong to none of the instances given.
pub fn strays(root: &str, known: &HashSet<String>) -> Vec<PathBuf> {
    let strays =
        instances(root).into_iter().filter(|(key, replica, _)| !known.contains(&full_name(key, *replica)));
    strays.map(|(_, _, folder)| folder).collect()
}

/// The groups of instances below `root`, and whose they are.
pub fn instances(root: &str) -> Vec<(Key, u32, PathBuf)> {
    let Some(top) = top(root) else { return Vec::new() };
    let folders = |path: &Path| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|e| e.path())
            .collect::<Vec<_>>()
    };
    let namespaces = folders(&top);
    let all = namespaces.iter().flat_map(|namespace| folders(namespace));
    all.filter_map(|folder| instance(&folder).map(|(key, replica)| (key, replica, folder))).collect()
}

/// The instance whose group this is: NAMESPACE/FUNCTION.NUMBER.
fn instance(path: &Path) -> Option<(Key, u32)> {
    let (name, number) = path.file_name()?.to_str()?.rsplit_once('.')?;
    let key = Key::new(name, path.parent()?.file_name()?.to_str()?)?;
    let replica = number.parse().ok()?;
    is_instance_name(&full_name(&key, replica)).then_some((key, replica))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_their_instances_names() {
        let key = Key::new("f", "dev").unwrap();
        let path = folder("/workload", &key, 3).unwrap();
        assert_eq!(path, Path::new("/sys/fs/cgroup/workload/dev/f.3"));
        assert_eq!(instance(&path), Some((key.clone(), 3)));
        assert_eq!(of_namespace("/workload", &key.namespace).as_deref(), path.parent());
        assert_eq!(folder("", &key, 3), None);
        for other in ["/sys/fs/cgroup/workload/shims/x", "/sys/fs/cgroup/workload/dev/f.x", "/"] {
            assert_eq!(instance(Path::new(other)), None);
        }
    }

    #[tokio::test]
    async fn goes_with_what_is_below_and_is_fine_when_gone() {
        let place = tempfile::tempdir().unwrap();
        let group = place.path().join("f.0");
        fs::create_dir_all(group.join("a/b")).unwrap();
        end(&group).await.unwrap();
        assert!(!group.exists());
        end(&group).await.unwrap();
    }
}
