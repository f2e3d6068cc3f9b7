//! The hardware watchdog: resets a machine whose init does not feed it any more.
//!
//! PID 1 feeds it, and only while the supervisor's heart beats and data can be written. All times are far longer than
//! the slowest healthy machine needs: a reset is the last resort against one that nobody can reach any more.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cmdline::CommandLine;
use crate::console::{Level, alarm, kmsg};

const DEVICE: &str = "/dev/watchdog0";
/// Word of the kernel's command line that leaves it alone, with the value `off`.
const WORD: &str = "bothy.watchdog";

/// Time-outs in seconds that are asked for, the first that the hardware takes: bcm2835 has 15 at most.
const TIMEOUTS: [i32; 3] = [30, 15, 10];
/// The same while the machine ends: a disk may take long to take its last data.
const LONGEST: [i32; 4] = [600, 300, 120, 60];

/// How long after a beat the supervisor counts as alive; it sends one every 5 s.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(60);
/// How long ago data may have been written, in seconds; the supervisor writes every minute.
const DATA_LIMIT: u64 = 300;
/// How long a new supervisor has until its first beat.
const RESTART_LIMIT: Duration = Duration::from_secs(120);

// linux/watchdog.h; the same numbers on every architecture that we have.
const GET_BOOT_STATUS: libc::c_ulong = 0x8004_5702;
const KEEP_ALIVE: libc::c_ulong = 0x8004_5705;
const SET_TIMEOUT: libc::c_ulong = 0xc004_5706;
const GET_TIMEOUT: libc::c_ulong = 0x8004_5707;
/// The watchdog caused the last reset.
const CARD_RESET: i32 = 0x20;

/// What PID 1 knows of the watchdog.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    off: bool,
    refused: bool,
    device: Option<(Arc<Device>, Duration)>,
    pulse: Pulse,
    next: Option<Instant>,
    hungry: bool,
}

impl Watchdog {
    /// As the kernel's command line wants it.
    pub(crate) fn configured() -> Self {
        let off = CommandLine::read().is_ok_and(|line| line.value(WORD) == Some("off"));
        Self { off, ..Self::default() }
    }

    /// The supervisor's heart has beaten. The first time there is a device it is opened, and armed by that: its module
    /// is loaded by the supervisor.
    pub(crate) fn beat(&mut self, now: Instant, data: Option<u64>) {
        self.pulse.beat(now, data);
        if self.device.is_none() && !self.off && !self.refused {
            match Device::open() {
                Ok(Some(device)) => self.arm(device, now),
                Ok(None) => {}
                Err(error) => {
                    self.refused = true;
                    alarm(&format!("{DEVICE} stays off: {error}"));
                }
            }
        }
    }

    fn arm(&mut self, device: Device, now: Instant) {
        if device.number(GET_BOOT_STATUS).is_ok_and(|status| status & CARD_RESET != 0) {
            alarm("the hardware watchdog restarted this machine: it had stopped working");
        }
        let (asked, has) = device.set(&TIMEOUTS);
        // A time-out that nobody knows is taken for a short one.
        let every = Duration::from_secs(has.unwrap_or(6).max(3).unsigned_abs().into()) / 3;
        let has = has.map_or("an unknown time".to_owned(), |has| format!("{has} s"));
        kmsg(
            Level::Info,
            &format!(
                "{DEVICE}: asked for {} s, has {has}, fed every {} s",
                asked.unwrap_or_default(),
                every.as_secs()
            ),
        );
        self.device = Some((Arc::new(device), every));
        self.next = Some(now);
    }

    /// The supervisor is gone and starts again.
    pub(crate) fn supervisor_ended(&mut self, now: Instant) {
        self.pulse.supervisor_ended(now);
    }

    /// When it wants to be fed.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Feeds it if it is time to, and right to.
    pub(crate) fn turn(&mut self, now: Instant) {
        let (Some((device, every)), Some(next)) = (&self.device, self.next) else { return };
        if now < next {
            return;
        }
        self.next = Some(now + *every);
        let fresh = self.pulse.is_fresh(now);
        if fresh {
            device.feed();
        }
        if fresh == self.hungry {
            self.hungry = !fresh;
            match fresh {
                true => kmsg(Level::Warning, "the hardware watchdog is fed again"),
                false => alarm(&format!(
                    "{}: the hardware watchdog is not fed any more and restarts the machine",
                    self.pulse.complaint()
                )),
            }
        }
    }

    /// The machine ends, with a time limit of its own: a slow disk must not be taken for a dead machine.
    pub(crate) fn ending(&mut self) {
        if let Some((device, _)) = &self.device {
            let (_, has) = device.set(&LONGEST);
            kmsg(Level::Info, &format!("{DEVICE}: {} s for the end", has.unwrap_or_default()));
            device.feed();
        }
        self.pulse = Pulse::Ending;
    }

    /// The device, for who goes on feeding it when PID 1 has nothing else to do.
    pub(crate) fn device(&self) -> Option<Arc<Device>> {
        self.device.as_ref().map(|(device, _)| device.clone())
    }
}

/// Whether the machine works, as far as PID 1 hears.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Pulse {
    /// No supervisor has been heard.
    #[default]
    Silent,
    /// The last word holds until then; and whether it came from a supervisor that lives, and named data too old.
    Heard { until: Instant, alive: bool, stale: bool },
    /// Nothing is asked for.
    Ending,
}

impl Pulse {
    fn beat(&mut self, now: Instant, data: Option<u64>) {
        let stale = data.is_some_and(|age| age > DATA_LIMIT);
        *self = match *self {
            Self::Ending => Self::Ending,
            Self::Heard { until, .. } if stale => Self::Heard { until, alive: true, stale },
            _ => Self::Heard { until: now + HEARTBEAT_LIMIT, alive: true, stale },
        };
    }

    /// More time, for one that had worked: a supervisor that dies before its first beat, again and again, is no sign
    /// of life.
    fn supervisor_ended(&mut self, now: Instant) {
        if let Self::Heard { until, alive, stale: false } = self
            && std::mem::take(alive)
        {
            *until = (*until).max(now + RESTART_LIMIT);
        }
    }

    fn is_fresh(self, now: Instant) -> bool {
        match self {
            Self::Silent => false,
            Self::Heard { until, .. } => now < until,
            Self::Ending => true,
        }
    }

    fn complaint(self) -> &'static str {
        match self {
            Self::Heard { stale: true, .. } => "nothing was written to data for minutes",
            _ => "the supervisor does not live any more",
        }
    }
}

/// The open device: armed.
#[derive(Debug)]
pub(crate) struct Device(File);

impl Device {
    /// `None`: there is none (yet).
    fn open() -> io::Result<Option<Self>> {
        match OpenOptions::new().write(true).open(DEVICE) {
            Ok(file) => Ok(Some(Self(file))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets the first time-out that it takes: what was asked for, and what it says that it has.
    fn set(&self, timeouts: &[i32]) -> (Option<i32>, Option<i32>) {
        let asked = timeouts.iter().copied().find(|seconds| {
            let mut seconds = *seconds;
            // SAFETY: the call reads and writes one live integer.
            unsafe { libc::ioctl(self.0.as_raw_fd(), SET_TIMEOUT, &raw mut seconds) == 0 }
        });
        (asked, self.number(GET_TIMEOUT).ok())
    }

    fn number(&self, request: libc::c_ulong) -> io::Result<i32> {
        let mut number = 0_i32;
        // SAFETY: these calls write one live integer.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), request, &raw mut number) } {
            0 => Ok(number),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Begins its time-out anew.
    pub(crate) fn feed(&self) {
        // What it cannot take now it gets next time, or it resets a machine that cannot feed it.
        let _ = self.number(KEEP_ALIVE);
    }

    /// Switches it off, where it can be: for a machine that is to stay off.
    pub(crate) fn disarm(&self) {
        let _ = (&self.0).write_all(b"V");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn fed_only_while_the_heart_beats() {
        let (mut pulse, start) = (Pulse::default(), Instant::now());
        assert!(!pulse.is_fresh(start));
        pulse.beat(start, None);
        assert!(pulse.is_fresh(after(start, 59)));
        assert!(!pulse.is_fresh(after(start, 60)));
        pulse.beat(after(start, 90), Some(DATA_LIMIT));
        assert!(pulse.is_fresh(after(start, 149)));
    }

    #[test]
    fn a_heart_alone_is_not_enough_when_data_must_be_written() {
        let (mut pulse, start) = (Pulse::default(), Instant::now());
        pulse.beat(start, Some(0));
        pulse.beat(after(start, 50), Some(DATA_LIMIT + 1));
        assert!(pulse.is_fresh(after(start, 59)) && !pulse.is_fresh(after(start, 60)));
        assert!(pulse.complaint().contains("data"));
        // A new supervisor does not know how old it is, and says so by saying nothing.
        pulse.supervisor_ended(after(start, 55));
        assert!(!pulse.is_fresh(after(start, 60)));
    }

    #[test]
    fn a_new_supervisor_has_time_once() {
        let (mut pulse, start) = (Pulse::default(), Instant::now());
        pulse.beat(start, None);
        pulse.supervisor_ended(after(start, 10));
        assert!(pulse.is_fresh(after(start, 129)) && !pulse.is_fresh(after(start, 130)));
        // It died before it said anything.
        pulse.supervisor_ended(after(start, 100));
        assert!(!pulse.is_fresh(after(start, 130)));
        pulse.beat(after(start, 131), None);
        assert!(pulse.is_fresh(after(start, 190)));
    }

    #[test]
    fn the_end_is_not_judged() {
        let mut pulse = Pulse::Ending;
        let now = Instant::now();
        pulse.beat(now, Some(DATA_LIMIT + 1));
        pulse.supervisor_ended(now);
        assert!(pulse.is_fresh(after(now, 1000)));
    }
}
