//! What a person should know of the functions: which of them ended or did not start, and why. The supervisor shows it
//! (`X_NOTICE=`, a word of ours among those of sd_notify(3)); the actor of a function takes its notice back when it has been well for a while.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::key::Key;
use crate::notify::notify;

/// Functions that are named; of the others there is a number, because a message has 4096 bytes at most.
const NAMED: usize = 8;
/// Characters of one reason.
const LONGEST: usize = 300;

/// The notices by function.
#[derive(Debug, Default)]
pub struct Notices(Mutex<BTreeMap<String, (u32, String)>>);

impl Notices {
    /// Notes that a function ended, or did not start.
    pub fn set(&self, key: &Key, reason: &str) {
        self.change(|all| {
            let notice = all.entry(key.to_string()).or_default();
            *notice = (notice.0.saturating_add(1), one_line(reason));
            true
        });
    }

    /// Takes a function's notice back.
    pub fn clear(&self, key: &Key) {
        self.change(|all| all.remove(&key.to_string()).is_some());
    }

    /// Whether there is one of a function.
    pub fn has(&self, key: &Key) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&key.to_string())
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, (u32, String)>) -> bool) {
        // Told under the lock: the last word must be the newest.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if change(&mut all) {
            notify(&format!("X_NOTICE={}", tell(&all)));
        }
    }
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

fn tell(all: &BTreeMap<String, (u32, String)>) -> String {
    let one = |(key, (times, reason)): (&String, &(u32, String))| match times {
        1 => format!("function {key}: {reason}"),
        many => format!("function {key}: {reason}, {many} times"),
    };
    let mut told: Vec<_> = all.iter().take(NAMED).map(one).collect();
    if all.len() > NAMED {
        told.push(format!("{} functions more", all.len() - NAMED));
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
        assert!(told.len() < 4000 && told.ends_with("; 93 functions more"), "{}", told.len());
        notices.clear(&key("f"));
        assert!(!notices.has(&key("f")) && notices.has(&key("f1")));
    }
}
