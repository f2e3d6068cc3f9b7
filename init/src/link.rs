//! The socket between PID 1 and the supervisor: one seqpacket pair, one short line of text per packet, and for some
//! packets a descriptor beside it (`SCM_RIGHTS`, unix(7)). `README.md` of this crate has the list of packets.
//!
//! Reports that nobody acknowledged are sent again to the next supervisor. Descriptors are asked for one by one: an
//! answer for each question never fills the socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};

use crate::error::{Error, Result};
use crate::power::Ending;
use crate::process::Identity;

/// Environment variable with the supervisor's end.
pub(crate) const VARIABLE: &str = "BOTHY_PID1_FD";
/// The supervisor's end has this number.
pub(crate) const FD: i32 = 3;

/// Room for what one side says while the other one is busy: all reports that PID 1 keeps, and more.
const BUFFER_BYTES: usize = 1 << 20;
/// Longest packet.
const LONGEST: usize = 256;

/// What the supervisor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ToPid1 {
    /// Shutdown has begun.
    Stopping(Ending),
    /// Shutdown is PID 1's now.
    End(Ending),
    /// Reports up to here are taken.
    Ack(u64),
    /// The supervisor's heart beats; so long ago, in seconds, data was written, if data has to be writable.
    Alive(Option<u64>),
    /// Keep the descriptor that comes with it under this name.
    Store(String),
    /// Close what has this name.
    Unstore(String),
    /// Hand out the descriptor at this place.
    Fetch(usize),
}

/// What PID 1 says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ToSupervisor {
    /// An orphan ended.
    Reaped(Report),
    /// Somebody wants the machine to end.
    Request(Ending),
    /// The descriptor at this place, and its name.
    Stored(usize, String),
    /// There is none at that place.
    StoredEnd,
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
    pub(crate) fn encode(&self) -> String {
        match self {
            Self::Stopping(ending) => format!("stopping {}", ending.word()),
            Self::End(ending) => ending.word().to_owned(),
            Self::Ack(seq) => format!("ack {seq}"),
            Self::Alive(Some(seconds)) => format!("alive {seconds}"),
            Self::Alive(None) => "alive".to_owned(),
            Self::Store(name) => format!("store {name}"),
            Self::Unstore(name) => format!("unstore {name}"),
            Self::Fetch(place) => format!("fetch {place}"),
        }
    }

    /// Reads a packet; `None` for one that this version does not know.
    pub(crate) fn decode(packet: &str) -> Option<Self> {
        match packet.split_once(' ') {
            Some(("stopping", ending)) => Ending::from_word(ending).map(Self::Stopping),
            Some(("ack", seq)) => seq.parse().ok().map(Self::Ack),
            Some(("alive", seconds)) => seconds.parse().ok().map(|seconds| Self::Alive(Some(seconds))),
            Some(("store", name)) => Some(Self::Store(name.to_owned())),
            Some(("unstore", name)) => Some(Self::Unstore(name.to_owned())),
            Some(("fetch", place)) => place.parse().ok().map(Self::Fetch),
            None if packet == "alive" => Some(Self::Alive(None)),
            _ => Ending::from_word(packet).map(Self::End),
        }
    }
}

impl ToSupervisor {
    /// The packet.
    pub(crate) fn encode(&self) -> String {
        match self {
            Self::Reaped(Report { seq, who, status }) => {
                format!("reaped {seq} {} {} {status}", who.pid, who.started)
            }
            Self::Request(ending) => format!("request {}", ending.word()),
            Self::Stored(place, name) => format!("stored {place} {name}"),
            Self::StoredEnd => "stored-end".to_owned(),
        }
    }

    /// Reads a packet; `None` for one that this version does not know.
    pub(crate) fn decode(packet: &str) -> Option<Self> {
        let mut words = packet.split(' ');
        match words.next()? {
            "request" => Ending::from_word(words.next()?).map(Self::Request),
            "stored" => Some(Self::Stored(words.next()?.parse().ok()?, words.next()?.to_owned())),
            "stored-end" => Some(Self::StoredEnd),
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
    let made = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    let (one, other) = made.map_err(|errno| Error::Socket {
        act: "make",
        name: "pair for the supervisor".to_owned(),
        source: errno.into(),
    })?;
    for end in [&one, &other] {
        // Less room is more waiting, nothing worse.
        let _ = sockopt::set_socket_send_buffer_size_force(end, BUFFER_BYTES);
    }
    Ok((one, other))
}

/// A packet as it arrived.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Its text.
    pub text: String,
    /// What came with it.
    pub fd: Option<OwnedFd>,
}

/// Sends one packet without waiting, a descriptor with it or none.
pub(crate) fn post(end: &OwnedFd, packet: &str, fd: Option<BorrowedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let given = fd.map(|fd| [fd]);
    if let Some(given) = &given {
        control.push(SendAncillaryMessage::ScmRights(given));
    }
    sendmsg(
        end,
        &[IoSlice::new(packet.as_bytes())],
        &mut control,
        SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    )?;
    Ok(())
}

/// Takes one packet: `Ok(None)` when the other side is gone, `WouldBlock` when there is none.
pub(crate) fn take(end: &OwnedFd) -> io::Result<Option<Packet>> {
    let mut buffer = [0_u8; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let length = recvmsg(end, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags)?.bytes;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let bytes = buffer.get(..length).unwrap_or_default();
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some(Packet { text: String::from_utf8_lossy(bytes).into_owned(), fd }))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn text(end: &OwnedFd) -> Option<String> {
        take(end).unwrap().map(|packet| packet.text)
    }

    #[test]
    fn packets_survive_the_trip() {
        for packet in [
            ToPid1::Stopping(Ending::Reboot),
            ToPid1::End(Ending::Poweroff),
            ToPid1::Ack(12),
            ToPid1::Alive(None),
            ToPid1::Alive(Some(30)),
            ToPid1::Store("log/a@1".to_owned()),
            ToPid1::Unstore("log/a@1".to_owned()),
            ToPid1::Fetch(3),
        ] {
            assert_eq!(ToPid1::decode(&packet.encode()), Some(packet));
        }
        let report = Report { seq: 3, who: Identity { pid: 7, started: 99 }, status: 256 };
        for packet in [
            ToSupervisor::Reaped(report),
            ToSupervisor::Request(Ending::Reboot),
            ToSupervisor::Stored(0, "gateway/http".to_owned()),
            ToSupervisor::StoredEnd,
        ] {
            assert_eq!(ToSupervisor::decode(&packet.encode()), Some(packet));
        }
        for bad in ["stopping", "alive x", "store", "fetch -1", ""] {
            assert_eq!(ToPid1::decode(bad), None, "{bad}");
        }
        for bad in ["reaped 1 2", "stored", "stored x y"] {
            assert_eq!(ToSupervisor::decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn one_packet_at_a_time_and_the_end_is_seen() {
        let (a, b) = pair().unwrap();
        post(&a, "ack 1", None).unwrap();
        post(&a, "ack 2", None).unwrap();
        assert_eq!(text(&b).as_deref(), Some("ack 1"));
        assert_eq!(text(&b).as_deref(), Some("ack 2"));
        assert_eq!(take(&b).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(a);
        assert_eq!(text(&b), None);
        assert!(post(&b, "x", None).is_err());
    }

    #[test]
    fn a_descriptor_travels_with_its_packet() {
        use std::io::{Read, Write};

        let (a, b) = pair().unwrap();
        let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        post(&a, "store log/x", Some(far.as_fd())).unwrap();
        post(&a, "ack 1", None).unwrap();
        drop(far);
        let packet = take(&b).unwrap().unwrap();
        assert_eq!(packet.text, "store log/x");
        near.write_all(b"hello").unwrap();
        drop(near);
        let mut got = String::new();
        std::os::unix::net::UnixStream::from(packet.fd.unwrap()).read_to_string(&mut got).unwrap();
        assert_eq!(got, "hello");
        assert!(take(&b).unwrap().unwrap().fd.is_none());
    }
}
