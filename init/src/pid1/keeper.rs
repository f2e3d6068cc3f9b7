//! What PID 1 does for as long as the machine runs: signals, packets, children, and the descriptors of others.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::child::{Supervisor, next_dead, spawn_supervisor};
use super::signals;
use crate::console::{Level, alarm, kmsg};
use crate::link::{self, Packet, Report, ToPid1, ToSupervisor};
use crate::power::{self, Ending};
use crate::process::{Exit, Identity};
use crate::shelf::Shelf;
use crate::watchdog::Watchdog;

/// How long a shutdown may take before PID 1 ends it.
const STOP_LIMIT: Duration = Duration::from_secs(25);
/// How long a supervisor has to begin a shutdown that was asked for.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Longest pause before the next start of a supervisor that keeps dying. Nothing else stands still meanwhile, but
/// nothing else is started again either.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A supervisor that lived this long starts again at once.
const STABLE: Duration = Duration::from_secs(60);
/// Reports kept for the supervisor. A machine that makes more orphans than this while none runs has lost track anyway.
const REPORTS: usize = 512;

/// What PID 1 remembers.
#[derive(Default)]
pub(super) struct Keeper {
    supervisor: Option<Supervisor>,
    /// When the next one may start, and how often in a row it died young.
    start_at: Option<Instant>,
    deaths: u32,
    reports: VecDeque<Report>,
    seq: u64,
    /// The last report that this supervisor was told.
    told: u64,
    /// What must outlive the processes that use it.
    shelf: Shelf,
    watchdog: Watchdog,
    /// A shutdown under way or asked for, and when PID 1 stops waiting.
    ending: Option<(Ending, Instant)>,
    /// Whether the supervisor has begun it.
    begun: bool,
}

impl Keeper {
    /// One with nothing to remember yet.
    pub(super) fn new(watchdog: Watchdog) -> Self {
        Self { watchdog, ..Self::default() }
    }

    /// Waits for one thing to happen and deals with it.
    pub(super) fn turn(&mut self, signals: Option<&OwnedFd>) {
        if let Some((ending, end)) = self.ending
            && Instant::now() >= end
        {
            alarm("the shutdown took too long, ending it");
            self.finish(ending);
        }
        if self.supervisor.is_none() {
            if let (Some((ending, _)), true) = (self.ending, self.begun) {
                // It died while stopping things: what is left is PID 1's to kill.
                self.finish(ending);
            }
            if self.start_at.is_none_or(|at| Instant::now() >= at) {
                self.start();
            }
        }
        self.watchdog.turn(Instant::now());
        self.wait(signals);
        while let Some(signal) = signals.and_then(signals::next) {
            self.signal(signal);
        }
        self.packets();
        // Always: a SIGCHLD may stand for many, or have come before the mask.
        self.reap();
        self.report();
    }

    fn wait(&self, signals: Option<&OwnedFd>) {
        let mut fds = Vec::new();
        fds.extend(signals.map(|fd| PollFd::new(fd, PollFlags::IN)));
        let mut events = PollFlags::IN;
        if self.told < self.seq {
            // The socket was full.
            events |= PollFlags::OUT;
        }
        fds.extend(self.supervisor.as_ref().map(|s| PollFd::new(&s.socket, events)));
        let mut limit = Duration::from_secs(3600);
        let start = self.start_at.filter(|_| self.supervisor.is_none());
        let deadlines = [start, self.ending.map(|(_, end)| end), self.watchdog.due()];
        for deadline in deadlines.into_iter().flatten() {
            limit = limit.min(deadline.saturating_duration_since(Instant::now()));
        }
        if signals.is_none() {
            limit = limit.min(Duration::from_secs(1));
        }
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        let _ = poll(&mut fds, Some(&limit));
    }

    fn signal(&mut self, signal: i32) {
        match signal {
            libc::SIGTERM | libc::SIGINT => self.request(Ending::Reboot),
            libc::SIGUSR1 | libc::SIGUSR2 | libc::SIGPWR => self.request(Ending::Poweroff),
            _ => {}
        }
    }

    /// Passes on a wish for the end. Without a supervisor that acts on it, PID 1 does it alone after a while.
    fn request(&mut self, ending: Ending) {
        if self.begun {
            return;
        }
        let told = self.tell(&ToSupervisor::Request(ending));
        let limit = if told { REQUEST_LIMIT } else { Duration::ZERO };
        self.ending = Some((ending, Instant::now() + limit));
    }

    fn tell(&self, packet: &ToSupervisor) -> bool {
        self.supervisor.as_ref().is_some_and(|s| link::post(&s.socket, &packet.encode(), None).is_ok())
    }

    fn packets(&mut self) {
        while let Some(supervisor) = &self.supervisor {
            let Ok(Some(packet)) = link::take(&supervisor.socket) else { return };
            self.obey(packet);
        }
    }

    fn obey(&mut self, packet: Packet) {
        match (ToPid1::decode(&packet.text), packet.fd) {
            (Some(ToPid1::Stopping(ending)), _) => {
                self.ending = Some((ending, Instant::now() + STOP_LIMIT));
                self.begun = true;
                self.watchdog.ending();
            }
            (Some(ToPid1::End(ending)), _) => self.finish(ending),
            (Some(ToPid1::Ack(seq)), _) => self.reports.retain(|report| report.seq > seq),
            (Some(ToPid1::Alive(data)), _) => self.watchdog.beat(Instant::now(), data),
            (Some(ToPid1::Store(name)), Some(fd)) => {
                if !self.shelf.put(&name, fd) {
                    kmsg(Level::Warning, &format!("pid 1 has no room for {name}"));
                }
            }
            (Some(ToPid1::Unstore(name)), _) => self.shelf.remove(&name),
            (Some(ToPid1::Fetch(place)), _) => self.hand_out(place),
            (Some(ToPid1::Store(_)) | None, _) => {
                let text = format!("a packet that pid 1 does not understand: {}", packet.text);
                kmsg(Level::Warning, &text);
            }
        }
    }

    /// Answers; an answer that is lost in a full socket is asked for again.
    fn hand_out(&self, place: usize) {
        let Some(supervisor) = &self.supervisor else { return };
        let (packet, fd) = match self.shelf.at(place) {
            Some((name, fd)) => (ToSupervisor::Stored(place, name.to_owned()), Some(fd)),
            None => (ToSupervisor::StoredEnd, None),
        };
        let _ = link::post(&supervisor.socket, &packet.encode(), fd);
    }

    fn start(&mut self) {
        match spawn_supervisor() {
            Ok(supervisor) => {
                self.supervisor = Some(supervisor);
                // It is told everything that its predecessor did not acknowledge.
                self.told = 0;
                self.report();
            }
            Err(error) => {
                alarm(&error.to_string());
                self.died_young();
            }
        }
    }

    /// Tells what was not told, as long as there is room.
    fn report(&mut self) {
        let untold: Vec<Report> =
            self.reports.iter().filter(|report| report.seq > self.told).copied().collect();
        for report in untold {
            if !self.tell(&ToSupervisor::Reaped(report)) {
                return;
            }
            self.told = report.seq;
        }
        self.told = self.seq;
    }

    /// At once the first time, then with growing pauses.
    fn died_young(&mut self) {
        let pause = match self.deaths {
            0 => Duration::ZERO,
            deaths => Duration::from_millis(125) * 2_u32.saturating_pow(deaths.min(10)),
        };
        self.deaths = self.deaths.saturating_add(1);
        self.start_at = Some(Instant::now() + pause.min(LONGEST_PAUSE));
    }

    fn finish(&mut self, ending: Ending) -> ! {
        self.watchdog.ending();
        power::finish(ending, self.watchdog.device())
    }

    /// Reaps all that ended. The look before the wait tells the start time, which is gone after it.
    fn reap(&mut self) {
        while let Some(pid) = next_dead() {
            let who = Identity::of(pid);
            let mut status = 0;
            // SAFETY: the status is a live integer; the child is dead, so this returns.
            if unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } != pid {
                return;
            }
            if self.supervisor.as_ref().is_some_and(|supervisor| supervisor.pid == pid) {
                self.supervisor_died(status);
            } else if let Some(who) = who {
                self.seq += 1;
                let report = Report { seq: self.seq, who, status };
                if self.reports.len() == REPORTS {
                    self.reports.pop_front();
                }
                self.reports.push_back(report);
            }
        }
    }

    fn supervisor_died(&mut self, status: i32) {
        let lived = self.supervisor.take().map_or(Duration::ZERO, |supervisor| supervisor.since.elapsed());
        alarm(&format!("the supervisor ended with {}", Exit::from_status(status)));
        self.watchdog.supervisor_ended(Instant::now());
        if lived >= STABLE {
            self.deaths = 0;
            self.start_at = None;
        } else {
            self.died_young();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// A keeper with a supervisor, whose end of the socket is the second one.
    fn keeper() -> (Keeper, OwnedFd) {
        let mut keeper = Keeper::default();
        let end = join(&mut keeper);
        (keeper, end)
    }

    /// As after a start.
    fn join(keeper: &mut Keeper) -> OwnedFd {
        let (socket, end) = link::pair().unwrap();
        // No process has this number.
        keeper.supervisor = Some(Supervisor { pid: i32::MAX, socket, since: Instant::now() });
        keeper.told = 0;
        keeper.report();
        end
    }

    fn heard(end: &OwnedFd) -> Vec<Packet> {
        std::iter::from_fn(|| link::take(end).ok().flatten()).collect()
    }

    #[test]
    fn descriptors_outlive_the_supervisor_that_stored_them() {
        let (mut keeper, end) = keeper();
        let file = std::fs::File::open("/dev/null").unwrap();
        for name in ["gateway/http", "log/a@1", "no name"] {
            link::post(&end, &ToPid1::Store(name.to_owned()).encode(), Some(file.as_fd())).unwrap();
        }
        link::post(&end, "store log/without", None).unwrap();
        link::post(&end, &ToPid1::Unstore("log/a@1".to_owned()).encode(), None).unwrap();
        keeper.packets();
        drop(end);
        let end = join(&mut keeper);
        for place in 0..2 {
            link::post(&end, &ToPid1::Fetch(place).encode(), None).unwrap();
        }
        keeper.packets();
        let answers = heard(&end);
        let texts: Vec<_> =
            answers.iter().map(|packet| (packet.text.as_str(), packet.fd.is_some())).collect();
        assert_eq!(texts, [("stored 0 gateway/http", true), ("stored-end", false)]);
    }

    #[test]
    fn reports_that_do_not_fit_are_told_later_and_those_of_a_dead_supervisor_again() {
        let (mut keeper, end) = keeper();
        // A supervisor that reads nothing, until the socket is full.
        let mut filled = 0;
        while keeper.tell(&ToSupervisor::Request(Ending::Reboot)) {
            filled += 1;
        }
        for seq in 1..=3 {
            let who = Identity { pid: seq, started: 7 };
            keeper.seq += 1;
            keeper.reports.push_back(Report { seq: keeper.seq, who, status: 0 });
        }
        keeper.report();
        assert_eq!(keeper.told, 0);
        assert_eq!(heard(&end).len(), filled);
        keeper.report();
        assert_eq!(heard(&end).len(), 3);
        link::post(&end, "ack 1", None).unwrap();
        keeper.packets();
        drop(end);
        let end = join(&mut keeper);
        let again: Vec<_> = heard(&end).into_iter().map(|packet| packet.text).collect();
        assert_eq!(again, ["reaped 2 2 7 0", "reaped 3 3 7 0"]);
    }
}
