//! The functions' `/etc/hosts`: one file for all, which each instance sees by a bind mount, and which is therefore changed
//! in place while they read it.
//!
//! Every name stands for the machine's own address in the functions' network: functions reach each other through the
//! gateway, which knows from the name whom they want. So a function that comes is a line at the end, and one that goes has
//! the first character of its line overwritten: nothing that somebody is reading moves, and nobody ever sees the file
//! empty. Lines that were overwritten are taken out when there are more of them than of the others.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::key::Key;
use crate::names;

/// Lines of functions that are gone that may stay in any case.
const FEW: usize = 16;

/// The file.
pub struct Hosts {
    path: PathBuf,
    /// The machine's address as functions see it.
    machine: Ipv4Addr,
    page: Mutex<Page>,
}

#[derive(Default)]
struct Page {
    /// In the order of the file: functions, and whether they are there.
    lines: Vec<(Key, bool)>,
    /// What is in the file, as far as we know.
    written: Option<String>,
}

impl Hosts {
    /// Nothing is written yet.
    pub fn new(path: PathBuf, machine: Ipv4Addr) -> Self {
        Self { path, machine, page: Mutex::default() }
    }

    /// Names these functions, and those that were named before.
    pub fn add(&self, keys: impl IntoIterator<Item = Key>) {
        let mut page = self.page();
        for key in keys {
            page.set(&key, true);
        }
        self.told(&mut page);
    }

    /// Names a function from now on, or no longer.
    pub fn set(&self, key: &Key, there: bool) {
        let mut page = self.page();
        if page.set(key, there) {
            self.told(&mut page);
        }
    }

    /// The file as it should be, for an instance that is about to see it.
    pub fn file(&self) -> Result<PathBuf> {
        self.write(&mut self.page())?;
        Ok(self.path.clone())
    }

    /// What cannot be written now is written with the next change or for the next instance.
    fn told(&self, page: &mut Page) {
        if let Err(error) = self.write(page) {
            tracing::warn!("functions do not find each other by name: {error}");
        }
    }

    fn write(&self, page: &mut Page) -> Result<()> {
        let wanted = page.text(self.machine);
        // By whoever cleans up /run, or at the very first.
        if !self.path.exists() {
            page.written = None;
        }
        if page.written.as_ref() != Some(&wanted) {
            let old = page.written.take();
            let written = change(&self.path, old.as_deref(), &wanted);
            written.map_err(|source| Error::Write { path: self.path.clone(), source })?;
            page.written = Some(wanted);
        }
        Ok(())
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        // A panic while it was held cannot leave a line half-changed.
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    /// Gives whether that is a change.
    fn set(&mut self, key: &Key, there: bool) -> bool {
        match self.lines.iter_mut().find(|(known, _)| known == key) {
            Some((_, was)) if *was == there => return false,
            Some((_, was)) => *was = there,
            None if there => self.lines.push((key.clone(), true)),
            None => return false,
        }
        let gone = self.lines.iter().filter(|(_, there)| !there).count();
        if gone > FEW.max(self.lines.len() / 2) {
            self.lines.retain(|(_, there)| *there);
        }
        true
    }

    fn text(&self, machine: Ipv4Addr) -> String {
        let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        for names in names::services() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{machine} {}", names.join(" "));
        }
        for (key, there) in &self.lines {
            let begin = text.len();
            let _ = writeln!(text, "{machine} {}", names::of(key).join(" "));
            if !there {
                text.replace_range(begin..=begin, "#");
            }
        }
        text
    }
}

/// Makes a file say something else: only from where it differs, and longer rather than shorter. Where nobody knows what is
/// in it, it is looked.
fn change(path: &Path, old: Option<&str>, new: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    let found;
    let old = match old {
        Some(old) => old.as_bytes(),
        None => {
            found = fs::read(path)?;
            &found
        }
    };
    let new = new.as_bytes();
    if old == new {
        return Ok(());
    }
    let same = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let mut piece = new.get(same..).unwrap_or_default().to_vec();
    if old.len() == new.len() {
        // They differ, so the end begins behind what differs first.
        let end = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
        piece.truncate(piece.len() - end);
    } else {
        // Empty lines first where it gets shorter: a reader between the two steps must not find half a line of before.
        piece.resize(piece.len().max(old.len() - same), b'\n');
    }
    file.write_all_at(&piece, same as u64)?;
    if old.len() > new.len() {
        file.set_len(new.len() as u64)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const MACHINE: Ipv4Addr = Ipv4Addr::new(10, 62, 0, 1);
    const FIRST: &str = "127.0.0.1 localhost\n::1 localhost\n10.62.0.1 gateway gateway.openfaas\n\
                         10.62.0.1 nats nats.openfaas\n10.62.0.1 prometheus prometheus.openfaas\n";

    fn key(name: &str) -> Key {
        Key::from_path(name).unwrap()
    }

    fn line(name: &str) -> String {
        format!("10.62.0.1 {}\n", names::of(&key(name)).join(" "))
    }

    #[test]
    fn lines_come_and_go_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/hosts");
        let hosts = Hosts::new(path.clone(), MACHINE);
        let text = || fs::read_to_string(&path).unwrap();
        assert_eq!(hosts.file().unwrap(), path);
        assert_eq!(text(), FIRST);
        // As a container sees it.
        let seen = File::open(&path).unwrap();
        hosts.add([key("a"), key("b.dev")]);
        assert_eq!(text(), format!("{FIRST}{}{}", line("a"), line("b.dev")));
        hosts.set(&key("a"), false);
        hosts.set(&key("c"), false);
        assert_eq!(text(), format!("{FIRST}#{}{}", &line("a")[1..], line("b.dev")));
        hosts.set(&key("nats"), true);
        hosts.set(&key("a"), true);
        assert_eq!(text(), format!("{FIRST}{}{}{}", line("a"), line("b.dev"), line("nats")));
        assert!(text().ends_with("\n10.62.0.1 nats.openfaas-fn nats.openfaas-fn.svc.cluster.local\n"));
        assert_eq!(io::read_to_string(seen).unwrap(), text());
        // The next gateway does not know what is in it.
        let next = Hosts::new(path.clone(), MACHINE);
        next.add([key("b.dev")]);
        assert_eq!(text(), format!("{FIRST}{}", line("b.dev")));
        // Nor does the one after it, for which it is right already.
        let next = Hosts::new(path.clone(), MACHINE);
        next.add([key("b.dev")]);
        assert_eq!(text(), format!("{FIRST}{}", line("b.dev")));
        fs::remove_file(&path).unwrap();
        next.file().unwrap();
        assert_eq!(text(), format!("{FIRST}{}", line("b.dev")));
    }

    #[test]
    fn what_is_the_same_is_not_written() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let hosts = Hosts::new(folder.path().join("hosts"), MACHINE);
        hosts.add([key("a")]);
        let mark =
            || fs::metadata(hosts.file().unwrap()).map(|found| (found.mtime(), found.mtime_nsec())).unwrap();
        let before = mark();
        for _ in 0..100 {
            hosts.set(&key("a"), true);
            hosts.set(&key("b"), false);
        }
        assert_eq!(mark(), before);
    }

    /// Somebody reads while functions come and go: what is read is whole lines, and those of functions that stay are all
    /// there. (It fails within moments with a file that is truncated and written.)
    #[test]
    fn readers_always_find_who_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let hosts = Hosts::new(path.clone(), MACHINE);
        let stays: Vec<Key> = (0..20).map(|number| key(&format!("stays{number}"))).collect();
        hosts.add(stays.clone());
        let busy = std::thread::spawn(move || {
            for round in 0..60 {
                for number in 0..20 {
                    hosts.set(&key(&format!("comes{round}-{number}")), true);
                }
                for number in 0..20 {
                    hosts.set(&key(&format!("comes{round}-{number}")), false);
                }
            }
        });
        while !busy.is_finished() {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with(FIRST), "{text}");
            let lines: BTreeSet<&str> = text.lines().collect();
            for key in &stays {
                assert!(lines.contains(line(&key.to_string()).trim_end()), "{key} is not in {text}");
            }
        }
        busy.join().unwrap();
    }

    proptest! {
        #[test]
        fn the_file_is_what_was_asked_for(steps in prop::collection::vec((0u8..40, any::<bool>()), 0..150)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("hosts");
            let (hosts, mut wanted) = (Hosts::new(path.clone(), MACHINE), BTreeSet::new());
            hosts.add([]);
            for (number, there) in steps {
                let name = format!("f{number}");
                hosts.set(&key(&name), there);
                if there { wanted.insert(line(&name)) } else { wanted.remove(&line(&name)) };
                let text = fs::read_to_string(&path).unwrap();
                let (first, rest) = text.split_at(FIRST.len());
                prop_assert_eq!(first, FIRST);
                let found: Vec<String> =
                    rest.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
                prop_assert_eq!(found.len(), wanted.len());
                prop_assert_eq!(&found.into_iter().collect::<BTreeSet<_>>(), &wanted);
                prop_assert!(rest.lines().count() <= 2 * wanted.len() + FEW + 2);
            }
        }

        #[test]
        fn any_text_becomes_any_other(old in "[ab\n]{0,12}", new in "[ab\n]{0,12}", known in any::<bool>()) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("hosts");
            fs::write(&path, &old).unwrap();
            change(&path, known.then_some(old.as_str()), &new).unwrap();
            prop_assert_eq!(fs::read_to_string(&path).unwrap(), new);
        }
    }
}
