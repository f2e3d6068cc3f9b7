//! The network: every wired card up, DHCPv4 where there is a cable, by events alone.
//!
//! Level-triggered: each event, whatever it says, leads to a look at all links. IPv6 is the kernel's (accept_ra).

mod address;
mod dhcp;
mod keeper;
mod lease;
mod resolv;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use rtnetlink::{Handle, LinkUnspec, MulticastGroup, new_multicast_connection};
use tokio::sync::watch;
use tokio::task::{AbortHandle, spawn_local};

use crate::board::Board;
use crate::error::{Error, Result};

pub(crate) use lease::Lease;

/// Links are looked at this often even without an event: the kernel drops events when nobody reads fast enough.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// A wired link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// Kernel index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Set up by us or another.
    pub up: bool,
    /// Its cable.
    pub cable: Cable,
}

/// A link's cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cable {
    /// There is one, with somebody at its other end.
    pub carrier: bool,
    /// How often there was none any more: out and in again between two looks is a change, too.
    pub losses: u32,
}

impl Link {
    /// Reads a link; `None` for what is no Ethernet card. A card has a device behind it; bridges and the like do not.
    fn read(message: &LinkMessage, class: &Path) -> Option<Self> {
        if message.header.link_layer_type != LinkLayerType::Ether {
            return None;
        }
        let (mut name, mut mac, mut losses) = (None, None, 0);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text.clone()),
                LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
                LinkAttribute::CarrierDownCount(count) => losses = *count,
                _ => {}
            }
        }
        let (name, mac) = (name?, mac?);
        let folder = class.join(&name);
        if !folder.join("device").exists() || folder.join("wireless").exists() {
            return None;
        }
        let flags = message.header.flags;
        let (up, carrier) = (flags.contains(LinkFlags::Up), flags.contains(LinkFlags::LowerUp));
        Some(Self { index: message.header.index, name, mac, up, cable: Cable { carrier, losses } })
    }
}

/// Hardware address of the first wired card, for the machine's name.
pub(crate) fn first_mac(class: &Path) -> Option<[u8; 6]> {
    let mut cards: Vec<_> = std::fs::read_dir(class).ok()?.flatten().map(|entry| entry.path()).collect();
    cards.retain(|card| card.join("device").exists() && !card.join("wireless").exists());
    cards.sort();
    cards.iter().find_map(|card| {
        let text = std::fs::read_to_string(card.join("address")).ok()?;
        let mut parts = text.trim().split(':').map(|part| u8::from_str_radix(part, 16).ok());
        let mut mac = [0; 6];
        for byte in &mut mac {
            *byte = parts.next()??;
        }
        (mac != [0; 6]).then_some(mac)
    })
}

/// What the tasks of all links share.
#[derive(Clone)]
pub(crate) struct Shared {
    handle: Handle,
    board: Board,
    /// Link name to what it is doing or has.
    links: Rc<RefCell<BTreeMap<String, Progress>>>,
}

/// What a link is at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Progress {
    /// No cable. Its address, if it has one, stays until its lease ends: cables come back.
    Unplugged(Option<Ipv4Addr>),
    /// Asks for an address.
    Asking {
        /// Nobody answered so far.
        silent: bool,
    },
    /// Has one.
    Bound {
        /// What it has.
        lease: Lease,
        /// Nobody answered when it was to be renewed.
        silent: bool,
    },
}

impl Progress {
    /// What a person reads.
    fn describe(&self, name: &str) -> String {
        let unanswered = |silent: &bool| if *silent { ", no dhcp server answers" } else { "" };
        match self {
            Self::Unplugged(None) => format!("{name} has no cable"),
            Self::Unplugged(Some(address)) => format!("{name} has no cable, keeps {address}"),
            Self::Asking { silent } => format!("{name} asks for an address{}", unanswered(silent)),
            Self::Bound { lease, silent } => format!("{name} has {}{}", lease.address, unanswered(silent)),
        }
    }
}

impl Shared {
    /// Notes a link's progress; the status and resolv.conf follow.
    pub(crate) fn note(&self, name: &str, progress: Option<Progress>) {
        match progress {
            Some(progress) => self.links.borrow_mut().insert(name.to_owned(), progress),
            None => self.links.borrow_mut().remove(name),
        };
        let links = self.links.borrow();
        let leases: Vec<_> = links
            .values()
            .filter_map(|progress| match progress {
                Progress::Bound { lease, .. } => Some(lease),
                _ => None,
            })
            .collect();
        if let Err(error) = resolv::write(Path::new("/etc/resolv.conf"), &leases) {
            tracing::warn!("{error}");
        }
        let text: Vec<_> = links.iter().map(|(name, progress)| progress.describe(name)).collect();
        let text = text.join(", ");
        let asking = links.values().any(|progress| *progress == Progress::Asking { silent: false });
        let address = leases.first().map(|lease| lease.address.to_string());
        self.board.change(|status| {
            status.settled = address.is_some() || !asking;
            status.network = if text.is_empty() { "no network card".to_owned() } else { text };
            status.url = url(address.as_deref());
            status.address = address;
        });
    }
}

/// Where the gateway answers, as far as is known.
pub(crate) fn url(address: Option<&str>) -> String {
    format!("http://{}:{}", address.unwrap_or("127.0.0.1"), crate::board::GATEWAY_PORT)
}

/// Brings the loopback up and keeps all cards running. `looked` turns true when the devices that are there have
/// their modules: only then a missing card is missing. Ends on failure alone.
pub(crate) async fn run(board: Board, mut looked: watch::Receiver<bool>) -> Result<()> {
    let (connection, handle, mut events) = new_multicast_connection(&[MulticastGroup::Link])
        .map_err(|source| Error::Socket { act: "open", name: "rtnetlink".to_owned(), source })?;
    spawn_local(connection);
    board.problem("loopback", set_up(&handle, 1, "lo").await.err().map(|error| error.to_string()));
    let shared = Shared { handle, board, links: Rc::default() };
    let mut tasks: BTreeMap<u32, Task> = BTreeMap::new();
    let mut quiet = false;
    loop {
        let trouble = look(&shared, &mut tasks).await?;
        shared.board.problem("network", (!trouble.is_empty()).then(|| trouble.join("\n")));
        if *looked.borrow() && shared.links.borrow().is_empty() && !quiet {
            shared.note("-", None);
            quiet = true;
        }
        tokio::select! {
            event = events.next() => if event.is_none() {
                return Err(wrong("listen", "-")("the netlink connection ended"));
            },
            _ = looked.changed(), if !*looked.borrow() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        // What came with it is seen by the same look.
        while let Ok(Some(_)) = tokio::time::timeout(Duration::ZERO, events.next()).await {}
    }
}

/// A link's task, which ends with its owner: after a fault of the whole there must not be two for one link.
struct Task {
    name: String,
    cable: watch::Sender<Cable>,
    handle: AbortHandle,
}

impl Task {
    fn start(shared: &Shared, link: &Link) -> Self {
        let (cable, changes) = watch::channel(link.cable);
        let handle = spawn_local(keeper::keep(shared.clone(), link.clone(), changes)).abort_handle();
        Self { name: link.name.clone(), cable, handle }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// Makes what is running match the links that are there. Gives what is wrong with single ones: the others go on.
async fn look(shared: &Shared, tasks: &mut BTreeMap<u32, Task>) -> Result<Vec<String>> {
    let links: Vec<_> =
        shared.handle.link().get().execute().try_collect().await.map_err(wrong("list links", "-"))?;
    let links: Vec<_> = links.iter().filter_map(|m| Link::read(m, Path::new("/sys/class/net"))).collect();
    let mut trouble = Vec::new();
    for link in &links {
        if !link.up
            && let Err(error) = set_up(&shared.handle, link.index, &link.name).await
        {
            trouble.push(error.to_string());
        }
        match tasks.get(&link.index) {
            Some(task) if task.name == link.name => {
                task.cable.send_if_modified(|cable| std::mem::replace(cable, link.cable) != link.cable);
            }
            _ => {
                // Its task tells more when it has run; that the link is there is known at once.
                let asking = Progress::Asking { silent: false };
                let first = if link.cable.carrier { asking } else { Progress::Unplugged(None) };
                shared.note(&link.name, Some(first));
                tasks.insert(link.index, Task::start(shared, link));
            }
        }
    }
    tasks.retain(|index, _| links.iter().any(|link| link.index == *index));
    // Of all that were seen, not of those with a cable alone.
    let known: Vec<_> = shared.links.borrow().keys().cloned().collect();
    for name in known.iter().filter(|name| !links.iter().any(|link| link.name == **name)) {
        shared.note(name, None);
    }
    Ok(trouble)
}

async fn set_up(handle: &Handle, index: u32, name: &str) -> Result<()> {
    let message = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(message).execute().await.map_err(wrong("bring up", name))
}

/// [`Error::Network`] of an act on a link.
pub(crate) fn wrong<E: std::fmt::Display>(act: &'static str, link: &str) -> impl FnOnce(E) -> Error {
    let link = link.to_owned();
    move |reason| Error::Network { act, link, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_first_real_card() {
        let class = tempfile::tempdir().unwrap();
        let card = |name: &str, mac: &str, device: bool| {
            let folder = class.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("address"), mac).unwrap();
            if device {
                std::fs::create_dir(folder.join("device")).unwrap();
            }
        };
        assert_eq!(first_mac(class.path()), None);
        card("br0", "02:00:00:00:00:01\n", false);
        card("eth1", "52:54:00:12:34:57\n", true);
        card("eth0", "52:54:00:12:34:56\n", true);
        assert_eq!(first_mac(class.path()), Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
    }
}
