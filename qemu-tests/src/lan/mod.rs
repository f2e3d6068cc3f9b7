//! A network for one machine, in the test's own process: a router that answers ARP, and a DHCP server on it that does
//! as it is told. It needs no rights, and it can misbehave.

mod frame;
mod message;

use std::fs::{self, DirBuilder};
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use image::qemu::Wire;

use frame::{Arp, Frame};
pub use message::Asked;
use message::Kind;

/// How long a machine may take to answer an ARP request.
const ARP_LIMIT: Duration = Duration::from_secs(3);

/// What the network gives.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    /// The machine's address, in a network of 24 bits whose `.1` is the router.
    pub address: Ipv4Addr,
    /// After how many seconds it is to be asked for again.
    pub renew: u32,
    /// After how many seconds it is not the machine's any more.
    pub lease: u32,
    /// Whether the server refuses addresses of other networks; else it keeps silent about them.
    pub refuses: bool,
}

impl Offer {
    /// An address for a day, from a server that refuses others.
    pub fn new(address: [u8; 4]) -> Self {
        Self { address: address.into(), renew: 43_200, lease: 86_400, refuses: true }
    }

    /// The router.
    fn router(&self) -> Ipv4Addr {
        let [a, b, c, _] = self.address.octets();
        Ipv4Addr::new(a, b, c, 1)
    }
}

struct State {
    offer: Offer,
    /// Whether the DHCP server is there.
    serves: bool,
    asked: Vec<Asked>,
    /// Addresses that somebody on the wire said are its own.
    claimed: Vec<Ipv4Addr>,
}

struct Shared {
    state: Mutex<State>,
    socket: UnixDatagram,
    wire: Wire,
    over: AtomicBool,
}

/// A network with one socket for one machine.
pub struct Lan {
    shared: Arc<Shared>,
    folder: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Lan {
    /// A network whose DHCP server is switched off.
    ///
    /// # Errors
    /// Its socket cannot be made.
    pub fn new(offer: Offer) -> Result<Self> {
        // Not below the test's own folder: the name of a socket may have 107 bytes at most (unix(7)).
        let folder = std::env::temp_dir().join(format!("bothy-lan-{}", std::process::id()));
        // Left behind by an earlier process of the same number, which is dead, or by the attempt before this one.
        let _ = fs::remove_dir_all(&folder);
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("create {}", folder.display()))?;
        let wire = Wire { machine: folder.join("machine"), host: folder.join("host") };
        let socket =
            UnixDatagram::bind(&wire.host).with_context(|| format!("bind {}", wire.host.display()))?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).context("set up the network's socket")?;
        let state = State { offer, serves: false, asked: Vec::new(), claimed: Vec::new() };
        let shared = Shared { state: Mutex::new(state), socket, wire, over: AtomicBool::new(false) };
        let shared = Arc::new(shared);
        let theirs = Arc::clone(&shared);
        let thread = Some(std::thread::spawn(move || theirs.run()));
        Ok(Self { shared, folder, thread })
    }

    /// The cable for the machine.
    pub fn wire(&self) -> Wire {
        self.shared.wire.clone()
    }

    /// Switches the DHCP server on, with that to give.
    pub fn serve(&self, offer: Offer) {
        self.shared.with(|state| (state.offer, state.serves) = (offer, true));
    }

    /// Switches the DHCP server off; the router stays.
    pub fn silence(&self) {
        self.shared.with(|state| state.serves = false);
    }

    /// What the server was asked since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.with(|state| std::mem::take(&mut state.asked))
    }

    /// Whether the machine answers to an address.
    pub fn has(&self, address: Ipv4Addr) -> bool {
        self.shared.with(|state| state.claimed.clear());
        let began = Instant::now();
        while began.elapsed() < ARP_LIMIT {
            self.shared.send(&frame::who_has(self.shared.with(|state| state.offer.router()), address));
            std::thread::sleep(Duration::from_millis(250));
            if self.shared.with(|state| state.claimed.contains(&address)) {
                return true;
            }
        }
        false
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A machine that is off hears nothing.
    fn send(&self, frame: &[u8]) {
        let _ = self.socket.send_to(frame, &self.wire.machine);
    }

    fn run(&self) {
        let mut buffer = [0; 2048];
        while !self.over.load(Ordering::Relaxed) {
            let Ok(length) = self.socket.recv(&mut buffer) else { continue };
            let Some(frame) = Frame::parse(buffer.get(..length).unwrap_or_default()) else { continue };
            let answer = self.with(|state| match frame {
                Frame::Arp(arp) => state.arp(&arp),
                Frame::Dhcp(payload) => state.dhcp(payload),
            });
            if let Some(answer) = answer {
                self.send(&answer);
            }
        }
    }
}

impl State {
    fn arp(&mut self, arp: &Arp) -> Option<Vec<u8>> {
        if !arp.request {
            self.claimed.push(arp.sender);
        }
        (arp.request && arp.target == self.offer.router()).then(|| frame::is_at(arp))
    }

    fn dhcp(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let question = message::Question::parse(payload)?;
        self.asked.push(question.asked);
        let kind = match question.asked {
            _ if !self.serves => return None,
            Asked::Any => Kind::Offer,
            Asked::For(address) if address == self.offer.address => Kind::Ack,
            Asked::For(_) if self.offer.refuses => Kind::Nak,
            Asked::For(_) => return None,
        };
        Some(frame::udp(self.offer.router(), &question.answer(kind, &self.offer)))
    }
}
