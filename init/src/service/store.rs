//! Descriptors that must outlive processes: listening sockets, notify sockets, and what services want back after their
//! next start (`FDSTORE=1`, sd_notify(3)). This is the supervisor's copy of what PID 1 keeps.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use super::socket::Socket;
use crate::error::Result;
use crate::link::ToPid1;
use crate::shelf::Shelf;

/// Name of the socket that a service's word of readiness comes by; it is never handed to the service.
pub(super) const NOTIFY: &str = "notify";
/// Name of what a service stores without one, as systemd has it.
const NAMELESS: &str = "stored";

type Tell = dyn Fn(&ToPid1, Option<BorrowedFd>);

/// What is kept, shared by all services.
#[derive(Clone, Default)]
pub(crate) struct Store(Rc<Inner>);

#[derive(Default)]
struct Inner {
    shelf: RefCell<Shelf>,
    /// The way to PID 1. Without one, what is here goes with this process.
    tell: Option<Box<Tell>>,
}

impl Store {
    /// A store that tells somebody what it keeps.
    pub(crate) fn telling(tell: impl Fn(&ToPid1, Option<BorrowedFd>) + 'static) -> Self {
        Self(Rc::new(Inner { shelf: RefCell::default(), tell: Some(Box::new(tell)) }))
    }

    /// Takes over what an earlier supervisor had kept; whoever keeps it knows that already.
    pub(crate) fn restore(&self, kept: Vec<(String, OwnedFd)>) {
        let mut shelf = self.0.shelf.borrow_mut();
        for (name, fd) in kept {
            shelf.put(&name, fd);
        }
    }

    /// Binds those of a service's sockets that are not here yet.
    pub(crate) fn bind(&self, service: &str, sockets: &[Socket]) -> Result<()> {
        for socket in sockets {
            if self.named(service, socket.name).is_none() {
                self.keep(service, socket.name, socket.bind()?);
            }
        }
        Ok(())
    }

    /// Keeps a descriptor for a service.
    pub(super) fn keep(&self, service: &str, name: &str, fd: OwnedFd) {
        let name = full(service, name);
        let Ok(copy) = fd.try_clone() else { return };
        if self.0.shelf.borrow_mut().put(&name, copy) {
            self.tell(&ToPid1::Store(name), Some(&fd));
        } else {
            tracing::warn!("there is no room to keep {name}");
        }
    }

    /// Closes all of that name.
    pub(super) fn forget(&self, service: &str, name: &str) {
        let name = full(service, name);
        self.0.shelf.borrow_mut().remove(&name);
        self.tell(&ToPid1::Unstore(name), None);
    }

    /// Closes all that a service has here.
    pub(super) fn forget_all(&self, service: &str) {
        let mut names: Vec<String> =
            self.0.shelf.borrow().of(service).map(|(name, _)| name.to_owned()).collect();
        names.sort();
        names.dedup();
        for name in names {
            self.forget(service, &name);
        }
    }

    /// A copy of what has that name.
    pub(super) fn named(&self, service: &str, name: &str) -> Option<OwnedFd> {
        self.0.shelf.borrow().named(&full(service, name))?.try_clone_to_owned().ok()
    }

    /// Names and numbers of what a service's next process gets.
    pub(super) fn handed(&self, service: &str) -> Vec<(String, RawFd)> {
        let shelf = self.0.shelf.borrow();
        let all = shelf.of(service).filter(|(name, _)| *name != NOTIFY);
        all.map(|(name, fd)| (name.to_owned(), fd.as_raw_fd())).collect()
    }

    fn tell(&self, packet: &ToPid1, fd: Option<&OwnedFd>) {
        use std::os::fd::AsFd;
        if let Some(tell) = &self.0.tell {
            tell(packet, fd.map(AsFd::as_fd));
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.shelf.borrow().fmt(f)
    }
}

/// What a message of a service says about descriptors.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish<'a> {
    /// Keep those that came with it.
    Keep(&'a str),
    /// Close those of that name.
    Forget(&'a str),
}

/// Reads such a wish out of a message of sd_notify(3).
pub(super) fn wish(message: &str) -> Option<Wish<'_>> {
    let name = message.lines().find_map(|line| line.strip_prefix("FDNAME="));
    // What belongs to us is not the service's to replace.
    let name = name.filter(|name| *name != NOTIFY).unwrap_or(NAMELESS);
    message.lines().find_map(|line| match line {
        "FDSTORE=1" => Some(Wish::Keep(name)),
        "FDSTOREREMOVE=1" => Some(Wish::Forget(name)),
        _ => None,
    })
}

fn full(service: &str, name: &str) -> String {
    format!("{service}/{name}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn pid_1_hears_what_is_kept_and_what_is_not() {
        let told = Rc::new(RefCell::new(Vec::new()));
        let store = Store::telling({
            let told = told.clone();
            move |packet, fd| told.borrow_mut().push((packet.encode(), fd.is_some()))
        });
        let (one, _end) = UnixStream::pair().unwrap();
        let copy = || OwnedFd::from(one.try_clone().unwrap());
        store.restore(vec![("log/old".to_owned(), copy())]);
        store.keep("log", "new", copy());
        store.keep("log", "new", copy());
        store.keep("log", NOTIFY, copy());
        store.keep("log", "no name", copy());
        let names: Vec<_> = store.handed("log").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["old", "new", "new"]);
        assert!(store.named("log", NOTIFY).is_some() && store.handed("gateway").is_empty());
        store.forget_all("log");
        assert!(store.handed("log").is_empty() && store.named("log", NOTIFY).is_none());
        let said = |text: &str, fd| (text.to_owned(), fd);
        let kept = [said("store log/new", true), said("store log/new", true), said("store log/notify", true)];
        let gone = ["new", "notify", "old"].map(|name| said(&format!("unstore log/{name}"), false));
        assert_eq!(*told.borrow(), [kept, gone].concat());
    }

    #[test]
    fn wishes() {
        assert_eq!(wish("FDSTORE=1\nFDNAME=a"), Some(Wish::Keep("a")));
        assert_eq!(wish("FDNAME=a\nFDSTOREREMOVE=1"), Some(Wish::Forget("a")));
        assert_eq!(wish("FDSTORE=1"), Some(Wish::Keep("stored")));
        assert_eq!(wish("FDSTOREREMOVE=1\nFDNAME=notify"), Some(Wish::Forget("stored")));
        assert_eq!(wish("READY=1\nFDNAME=a"), None);
    }
}
