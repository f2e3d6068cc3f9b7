//! Descriptors with names that must outlive a process: PID 1 keeps them, and the supervisor a copy of the same shelf.
//!
//! A name is `SERVICE/NAME`; several descriptors may have the same one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Most descriptors of one service: a service that stores without end must not use up those of the others.
const MOST_OF_A_SERVICE: usize = 512;
/// Most descriptors altogether; [`LIMIT`] leaves room for others.
const MOST: usize = 1024;
/// Open files that PID 1 and the supervisor need at most.
pub(crate) const LIMIT: u64 = 4096;
/// Longest name in bytes; it has to fit into a packet.
const LONGEST_NAME: usize = 200;

/// The shelf.
#[derive(Debug, Default)]
pub(crate) struct Shelf(Vec<(String, OwnedFd)>);

impl Shelf {
    /// Keeps a descriptor; `false`: the name is none, or there is no room, and it is closed. What the same service
    /// stored and whose other side is gone goes first: the service, which lives as it has just spoken, reads what is
    /// left in it from its own copy.
    pub(crate) fn put(&mut self, name: &str, fd: OwnedFd) -> bool {
        let Some((service, _)) = split(name) else { return false };
        self.drop_dead(service);
        let of_service = self.of(service).count();
        let room = of_service < MOST_OF_A_SERVICE && self.0.len() < MOST;
        if room {
            self.0.push((name.to_owned(), fd));
        }
        room
    }

    /// Closes all of that name.
    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    /// The first one of that name.
    pub(crate) fn named(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, fd)| fd.as_fd())
    }

    /// One by its place, for who takes all of them one after the other.
    pub(crate) fn at(&self, index: usize) -> Option<(&str, BorrowedFd<'_>)> {
        self.0.get(index).map(|(name, fd)| (name.as_str(), fd.as_fd()))
    }

    /// Those of a service, the service's name left out.
    pub(crate) fn of(&self, service: &str) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.0.iter().filter_map(move |(name, fd)| {
            let (owner, name) = name.split_once('/')?;
            (owner == service).then(|| (name, fd.as_fd()))
        })
    }

    fn drop_dead(&mut self, service: &str) {
        let belongs = |(name, _): &(String, OwnedFd)| split(name).is_some_and(|(owner, _)| owner == service);
        let mut fds: Vec<_> = self.0.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::empty())).collect();
        if poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_err() {
            return;
        }
        let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        let dead: Vec<bool> = fds.iter().map(|fd| fd.revents().intersects(gone)).collect();
        let mut dead = dead.into_iter();
        self.0.retain(|entry| !(dead.next().unwrap_or_default() && belongs(entry)));
    }
}

/// Service and name; `None` for what is no name.
pub(crate) fn split(name: &str) -> Option<(&str, &str)> {
    let fits = name.len() <= LONGEST_NAME && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    name.split_once('/').filter(|(service, name)| fits && !service.is_empty() && !name.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn stream() -> (OwnedFd, UnixStream) {
        let (one, other) = UnixStream::pair().unwrap();
        (one.into(), other)
    }

    #[test]
    fn keeps_what_lives_by_name_and_service() {
        let mut shelf = Shelf::default();
        let (one, end) = stream();
        let number = one.as_raw_fd();
        assert!(shelf.put("journald/stored", one));
        let (two, _two) = stream();
        assert!(shelf.put("gateway/http", two));
        let names: Vec<_> = shelf.of("journald").map(|(name, _)| name).collect();
        assert_eq!(names, ["stored"]);
        assert_eq!(shelf.named("journald/stored").unwrap().as_raw_fd(), number);
        // What is dead stays until its own service speaks: nobody else knows whether it is read.
        drop(end);
        let (three, _three) = stream();
        assert!(shelf.put("gateway/more", three));
        assert!(shelf.named("journald/stored").is_some());
        let (four, _four) = stream();
        assert!(shelf.put("journald/stored", four));
        assert_eq!(shelf.of("journald").count(), 1);
        assert_ne!(shelf.named("journald/stored").unwrap().as_raw_fd(), number);
        assert_eq!(shelf.at(0).unwrap().0, "gateway/http");
        shelf.remove("journald/stored");
        assert!(shelf.named("journald/stored").is_none() && shelf.at(2).is_none());
    }

    #[test]
    fn one_service_leaves_room_for_the_others() {
        let mut shelf = Shelf::default();
        let (fd, _end) = stream();
        let put = |shelf: &mut Shelf, name: &str| shelf.put(name, fd.try_clone().unwrap());
        let kept = (0..MOST_OF_A_SERVICE + 5).filter(|_| put(&mut shelf, "log/x")).count();
        assert_eq!(kept, MOST_OF_A_SERVICE);
        assert!(put(&mut shelf, "gateway/http"));
    }

    #[test]
    fn names() {
        assert_eq!(split("log/openfaas-fn.a.0.out@12"), Some(("log", "openfaas-fn.a.0.out@12")));
        for bad in ["", "log", "/x", "log/", "log/a b", "log/a\n", "log/a:b", "log/é"] {
            assert_eq!(split(bad), None, "{bad}");
        }
        assert_eq!(split(&format!("log/{}", "x".repeat(LONGEST_NAME))), None);
    }
}
