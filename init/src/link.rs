//! The socket between PID 1 and the supervisor: one seqpacket pair, one short line of text per packet.
//!
//! | from | packet | meaning |
//! |---|---|---|
//! | supervisor | `stopping poweroff` or `stopping reboot` | shutdown has begun; PID 1 starts its own clock |
//! | supervisor | `poweroff`, `reboot` | all phases done, the last one is PID 1's |
//! | supervisor | `ack SEQ` | reports up to SEQ are taken, PID 1 forgets them |
//! | PID 1 | `reaped SEQ PID STARTED STATUS` | an orphan ended; STATUS as of waitpid(2) |
//! | PID 1 | `request poweroff` or `request reboot` | a signal or Ctrl-Alt-Del asks for it |
//!
//! Reports that nobody acknowledged are sent again to the next supervisor. Descriptors will travel in the same packets.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

use crate::error::{Error, Result};
use crate::power::Ending;
use crate::process::Identity;

/// Environment variable with the supervisor's end.
pub(crate) const VARIABLE: &str = "BOTHY_PID1_FD";
/// The supervisor's end has this number.
pub(crate) const FD: i32 = 3;

/// What the supervisor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToPid1 {
    /// Shutdown has begun.
    Stopping(Ending),
    /// Shutdown is PID 1's now.
    End(Ending),
    /// Reports up to here are taken.
    Ack(u64),
}

/// What PID 1 says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToSupervisor {
    /// An orphan ended.
    Reaped(Report),
    /// Somebody wants the machine to end.
    Request(Ending),
}

/// An orphan's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Report {
    /// Number of the report.
    pub seq: u64,
    /// Who it was.
    pub who: Identity,
    /// waitpid's status word.
    pub status: i32,
}

impl ToPid1 {
    /// The packet.
    pub(crate) fn encode(self) -> String {
        match self {
            Self::Stopping(ending) => format!("stopping {}", ending.word()),
            Self::End(ending) => ending.word().to_owned(),
            Self::Ack(seq) => format!("ack {seq}"),
        }
    }

    /// Reads a packet; `None` for one that this version does not know.
    pub(crate) fn decode(packet: &str) -> Option<Self> {
        match packet.split_once(' ') {
            Some(("stopping", ending)) => Ending::from_word(ending).map(Self::Stopping),
            Some(("ack", seq)) => seq.parse().ok().map(Self::Ack),
            _ => Ending::from_word(packet).map(Self::End),
        }
    }
}

impl ToSupervisor {
    /// The packet.
    pub(crate) fn encode(self) -> String {
        match self {
            Self::Reaped(Report { seq, who, status }) => {
                format!("reaped {seq} {} {} {status}", who.pid, who.started)
            }
            Self::Request(ending) => format!("request {}", ending.word()),
        }
    }

    /// Reads a packet; `None` for one that this version does not know.
    pub(crate) fn decode(packet: &str) -> Option<Self> {
        let mut words = packet.split(' ');
        match words.next()? {
            "request" => Ending::from_word(words.next()?).map(Self::Request),
            "reaped" => {
                let seq = words.next()?.parse().ok()?;
                let who = Identity { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? };
                Some(Self::Reaped(Report { seq, who, status: words.next()?.parse().ok()? }))
            }
            _ => None,
        }
    }
}

/// Makes the pair: PID 1's end, the supervisor's end. Both are non-blocking and close on exec.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(|errno| Error::Socket {
        act: "make",
        name: "pair for the supervisor".to_owned(),
        source: errno.into(),
    })
}

/// Sends one packet without waiting.
pub(crate) fn post(end: &OwnedFd, packet: &str) -> io::Result<()> {
    send(end, packet.as_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// Takes one packet: `Ok(None)` when the other side is gone, `WouldBlock` when there is none.
pub(crate) fn take(end: &OwnedFd) -> io::Result<Option<String>> {
    let mut buffer = [0_u8; 256];
    let (_, length) = recv(end, &mut buffer, RecvFlags::DONTWAIT)?;
    let bytes = buffer.get(..length).unwrap_or_default();
    Ok(if bytes.is_empty() { None } else { Some(String::from_utf8_lossy(bytes).into_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_survive_the_trip() {
        for packet in [ToPid1::Stopping(Ending::Reboot), ToPid1::End(Ending::Poweroff), ToPid1::Ack(12)] {
            assert_eq!(ToPid1::decode(&packet.encode()), Some(packet));
        }
        let report = Report { seq: 3, who: Identity { pid: 7, started: 99 }, status: 256 };
        for packet in [ToSupervisor::Reaped(report), ToSupervisor::Request(Ending::Reboot)] {
            assert_eq!(ToSupervisor::decode(&packet.encode()), Some(packet));
        }
        assert_eq!(ToPid1::decode("stopping"), None);
        assert_eq!(ToSupervisor::decode("reaped 1 2"), None);
    }

    #[test]
    fn one_packet_at_a_time_and_the_end_is_seen() {
        let (a, b) = pair().unwrap();
        post(&a, "ack 1").unwrap();
        post(&a, "ack 2").unwrap();
        assert_eq!(take(&b).unwrap().as_deref(), Some("ack 1"));
        assert_eq!(take(&b).unwrap().as_deref(), Some("ack 2"));
        assert_eq!(take(&b).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(a);
        assert_eq!(take(&b).unwrap(), None);
        assert!(post(&b, "x").is_err());
    }
}
