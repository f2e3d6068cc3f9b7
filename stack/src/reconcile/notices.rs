//! What a person should know of the functions: which of them ended or did not start, and why, and which could not start
//! again. The supervisor shows it (`X_NOTICE=`, a word of ours among those of sd_notify(3)); the actor of a function takes
//! its notice back when it has been well for a while.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::key::Key;
use crate::notify::notify;

/// Functions that are named; of the others there is a number, because a message has 4096 bytes at most.
const NAMED: usize = 8;
/// Characters of one reason.
const LONGEST: usize = 300;

/// The notices.
#[derive(Debug, Default)]
pub struct Notices(Mutex<All>);

/// By function.
#[derive(Debug, Default)]
struct All {
    /// What happened last, and how often.
    happened: BTreeMap<String, (u32, String)>,
    /// What is missing for its next start, however well it is now.
    missing: BTreeMap<String, String>,
    /// What of its labels and annotations is not to be read, and counts as not there.
    misread: BTreeMap<String, String>,
    /// What is wrong with a part of the gateway.
    parts: BTreeMap<&'static str, String>,
}

impl Notices {
    /// Notes that a function ended, or did not start.
    pub fn set(&self, key: &Key, reason: &str) {
        self.change(|all| {
            let notice = all.happened.entry(key.to_string()).or_default();
            *notice = (notice.0.saturating_add(1), one_line(reason));
            true
        });
    }

    /// Takes a function's notice back.
    pub fn clear(&self, key: &Key) {
        self.change(|all| all.happened.remove(&key.to_string()).is_some());
    }

    /// Notes what is missing for a function's next start, or that nothing is. Tells whether that is new.
    pub fn set_missing(&self, key: &Key, missing: Option<String>) -> bool {
        self.change(|all| put(&mut all.missing, key, missing))
    }

    /// Notes what of a function's labels and annotations is not to be read, or that all is. Tells whether that is new.
    pub fn set_misread(&self, key: &Key, misread: Option<String>) -> bool {
        self.change(|all| put(&mut all.misread, key, misread))
    }

    /// Notes what is wrong with a part of the gateway, or that nothing is.
    pub fn set_part(&self, part: &'static str, wrong: Option<String>) {
        let wrong = wrong.map(|text| one_line(&text));
        self.change(|all| {
            let changed = all.parts.get(part) != wrong.as_ref();
            match wrong {
                Some(text) => drop(all.parts.insert(part, text)),
                None => drop(all.parts.remove(part)),
            }
            changed
        });
    }

    /// Whether there is one of a function's end or failure.
    pub fn has(&self, key: &Key) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).happened.contains_key(&key.to_string())
    }

    fn change(&self, change: impl FnOnce(&mut All) -> bool) -> bool {
        // Told under the lock: the last word must be the newest.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut all);
        if changed {
            notify(&format!("X_NOTICE={}", tell(&all)));
        }
        changed
    }
}

/// Sets what is told of a function, or that nothing is. Whether that is new.
fn put(map: &mut BTreeMap<String, String>, key: &Key, text: Option<String>) -> bool {
    let (key, text) = (key.to_string(), text.map(|text| one_line(&text)));
    let changed = map.get(&key) != text.as_ref();
    match text {
        Some(text) => drop(map.insert(key, text)),
        None => drop(map.remove(&key)),
    }
    changed
}

/// Semicolons separate the notices.
fn one_line(reason: &str) -> String {
    let fit = |c: char| match c {
        ';' => ',',
        c if c.is_control() => ' ',
        c => c,
    };
    reason.chars().map(fit).take(LONGEST).collect()
}

fn tell(all: &All) -> String {
    let happened = all.happened.iter().map(|(key, (times, reason))| match times {
        1 => format!("function {key}: {reason}"),
        many => format!("function {key}: {reason}, {many} times"),
    });
    let lasting = all.missing.iter().chain(&all.misread);
    let lasting = lasting.map(|(key, reason)| format!("function {key}: {reason}"));
    let parts = all.parts.iter().map(|(part, wrong)| format!("{part}: {wrong}"));
    let mut told: Vec<_> = parts.chain(happened.chain(lasting).take(NAMED)).collect();
    let number = all.happened.len() + all.missing.len() + all.misread.len();
    if number > NAMED {
        told.push(format!("{} more of functions", number - NAMED));
    }
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_that_fits_into_a_message() {
        let notices = Notices::default();
        let key = |name: &str| Key::new(name, "").unwrap();
        notices.set(&key("f"), "its process ended");
        assert_eq!(tell(&notices.0.lock().unwrap()), "function f.openfaas-fn: its process ended");
        notices.set(&key("f"), "no\nroom; none");
        assert_eq!(tell(&notices.0.lock().unwrap()), "function f.openfaas-fn: no room, none, 2 times");
        for number in 0..100 {
            notices.set(&key(&format!("f{number}")), &"x".repeat(5000));
        }
        let told = tell(&notices.0.lock().unwrap());
        assert!(told.len() < 4000 && told.ends_with("; 93 more of functions"), "{}", told.len());
        notices.clear(&key("f"));
        assert!(!notices.has(&key("f")) && notices.has(&key("f1")));
    }

    #[test]
    fn parts_of_the_gateway_come_first() {
        let notices = Notices::default();
        notices.set(&Key::new("f", "").unwrap(), "ended");
        notices.set_part("TLS", Some("no certificate; no key".into()));
        let tell = || tell(&notices.0.lock().unwrap());
        assert_eq!(tell(), "TLS: no certificate, no key; function f.openfaas-fn: ended");
        notices.set_part("TLS", None);
        assert_eq!(tell(), "function f.openfaas-fn: ended");
    }

    #[test]
    fn what_is_missing_outlasts_what_happened() {
        let notices = Notices::default();
        let key = Key::new("f", "").unwrap();
        assert!(notices.set_missing(&key, Some("names a; which".into())));
        assert!(!notices.set_missing(&key, Some("names a; which".into())));
        notices.set(&key, "ended");
        notices.clear(&key);
        assert!(!notices.has(&key));
        assert_eq!(tell(&notices.0.lock().unwrap()), "function f.openfaas-fn: names a, which");
        assert!(notices.set_misread(&key, Some("label".into())));
        let told = "function f.openfaas-fn: names a, which; function f.openfaas-fn: label";
        assert_eq!(tell(&notices.0.lock().unwrap()), told);
        assert!(notices.set_missing(&key, None) && notices.set_misread(&key, None));
        assert_eq!(tell(&notices.0.lock().unwrap()), "");
    }
}
