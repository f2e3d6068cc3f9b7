//! The functions' network: one bridge, a veth pair and a network namespace for each instance, one nftables table.
//!
//! ```text
//! function (netns, eth0 10.62.x.y) ── veth ── bridge of0 10.62.0.1/16 ── masquerade ── the world
//! ```
//!
//! An instance's address names everything else of it: the veth's name and the hardware address follow from it, so
//! nothing has to be remembered to clean up.

mod addresses;
mod links;
mod netns;
mod nft;
mod rules;

use std::collections::{BTreeSet, HashSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

pub use addresses::{Addresses, Subnet};
use provisioning::Egress;
use tokio::sync::watch;

use crate::error::{Error, Result};

/// How long an instance waits for the network to be made: at a machine's start it may be the earlier one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where things go and how they are called.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The bridge's name; the veths' begin with it.
    pub bridge: String,
    /// The functions' addresses; the first is the bridge's.
    pub subnet: Subnet,
    /// Folder of the named network namespaces.
    pub netns: PathBuf,
    /// The nft program; empty: no rules are made.
    pub nft: String,
    /// Name of our table in the inet family.
    pub table: String,
    /// The gateway's port, which functions may reach.
    pub port: u16,
    /// What else they may reach.
    pub egress: Egress,
}

#[cfg(test)]
impl Settings {
    /// Those of the appliance.
    fn sample(egress: Egress) -> Self {
        Self {
            bridge: "of0".into(),
            subnet: "10.62.0.0/16".parse().unwrap(),
            netns: "/run/netns".into(),
            nft: "nft".into(),
            table: "bothy".into(),
            port: 8080,
            egress,
        }
    }
}

/// The network's handle.
pub struct Network {
    settings: Settings,
    host: rtnetlink::Handle,
    addresses: Mutex<Addresses>,
    firewall: nft::Firewall,
    /// Whether it was set up.
    up: watch::Sender<bool>,
}

impl Network {
    /// Opens netlink; nothing is changed yet.
    pub fn open(settings: Settings) -> Result<Self> {
        let act = || "open".to_owned();
        let (connection, host, _) = rtnetlink::new_connection().map_err(|source| Error::Netlink {
            act: act(),
            source: rtnetlink::Error::NamespaceError(source.to_string()),
        })?;
        tokio::spawn(connection);
        let addresses = Mutex::new(Addresses::new(settings.subnet));
        let (firewall, up) = (nft::Firewall::default(), watch::Sender::new(false));
        Ok(Self { settings, host, addresses, firewall, up })
    }

    /// Puts our rules in place, then makes bridge and forwarding, which are left as they are where they are there already:
    /// no function has a link before there are rules. `servers` gives the machine's servers of names.
    pub async fn set_up(&self, servers: impl FnOnce() -> BTreeSet<Ipv4Addr>) -> Result<()> {
        let Settings { bridge, nft, egress, .. } = &self.settings;
        // Only for the way to NATS, and never without the rules that close the rest of the loopback.
        let localnet = format!("ipv4/conf/{bridge}/route_localnet");
        let wanted = egress.nats && !nft.is_empty();
        if !wanted {
            set(&localnet, "0")?;
        }
        self.allow_names(servers).await?;
        links::ensure_bridge(&self.host, &self.settings).await?;
        if wanted {
            set(&localnet, "1")?;
        }
        set("ipv4/ip_forward", "1")?;
        self.up.send_replace(true);
        Ok(())
    }

    /// Lets functions ask these servers of names, and none that they might ask before.
    pub async fn allow_names(&self, servers: impl FnOnce() -> BTreeSet<Ipv4Addr>) -> Result<()> {
        self.firewall.load(&self.settings, servers).await
    }

    /// Whether an address is one of the functions', and not the machine's own among them.
    pub fn is_function(&self, address: IpAddr) -> bool {
        let subnet = self.settings.subnet;
        matches!(address.to_canonical(), IpAddr::V4(v4) if subnet.contains(v4) && v4 != subnet.gateway())
    }

    /// The machine's address in the functions' network.
    pub fn gateway(&self) -> Ipv4Addr {
        self.settings.subnet.gateway()
    }

    /// Marks an address as taken by an instance that is there already.
    pub fn adopt(&self, address: Ipv4Addr) {
        self.pool().take(address);
    }

    /// Takes a free address.
    pub fn allocate(&self) -> Result<Ipv4Addr> {
        let free = self.pool().allocate();
        free.ok_or_else(|| Error::AddressesExhausted { subnet: self.settings.subnet.to_string() })
    }

    /// Where an instance's network namespace lies.
    pub fn netns(&self, instance: &str) -> PathBuf {
        self.settings.netns.join(instance)
    }

    /// Makes an instance's network namespace with its link to the bridge. On failure nothing stays.
    pub async fn attach(&self, instance: &str, address: Ipv4Addr) -> Result<()> {
        let path = self.netns(instance);
        // Left by a former life under the same name.
        netns::remove(&path)?;
        links::remove(&self.host, &self.link(address)).await?;
        // Where it takes longer there may be a bridge all the same, with the rules of the last gateway.
        let _ = tokio::time::timeout(PATIENCE, self.up.subscribe().wait_for(|up| *up)).await;
        let bridge = links::index(&self.host, &self.settings.bridge).await?;
        let plan = netns::Plan {
            path: path.clone(),
            link: self.link(address),
            bridge,
            address,
            subnet: self.settings.subnet,
        };
        let made = netns::make(self.host.clone(), plan).await;
        if made.is_err() {
            // The first error is the one to tell.
            let _ = netns::remove(&path);
            let _ = links::remove(&self.host, &self.link(address)).await;
        }
        made
    }

    /// Removes an instance's network namespace and link. Its address stays taken.
    pub async fn detach(&self, instance: &str, address: Option<Ipv4Addr>) -> Result<()> {
        let removed = netns::remove(&self.netns(instance));
        match address {
            Some(address) => removed.and(links::remove(&self.host, &self.link(address)).await),
            None => removed,
        }
    }

    /// Gives the address of an instance back of which nothing is left.
    pub fn release(&self, address: Ipv4Addr) {
        self.pool().free(address);
    }

    /// Removes namespaces and links of former lives: all of ours that belong to none of the instances given. Other
    /// people's namespaces in the folder have no name of the form NAMESPACE.FUNCTION.NUMBER, and stay. What cannot be
    /// removed is told and left: it must not keep the functions from running.
    pub async fn sweep(&self, instances: &HashSet<String>, addresses: &HashSet<Ipv4Addr>) -> Result<()> {
        for path in netns::list(&self.settings.netns)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if crate::reconcile::is_instance_name(name) && !instances.contains(name) {
                tracing::info!("removing the network namespace {name} of a former life");
                told(netns::remove(&path));
            }
        }
        let kept: HashSet<String> = addresses.iter().map(|address| self.link(*address)).collect();
        let prefix = format!("{}-", self.settings.bridge);
        for name in links::names(&self.host).await? {
            if name.starts_with(&prefix) && !kept.contains(&name) {
                tracing::info!("removing the link {name} of a former life");
                told(links::remove(&self.host, &name).await);
            }
        }
        Ok(())
    }

    fn link(&self, address: Ipv4Addr) -> String {
        let [_, _, high, low] = address.octets();
        format!("{}-{high:02x}{low:02x}", self.settings.bridge)
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Addresses> {
        // A panic while it was held cannot leave the set half-changed.
        self.addresses.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Sets a part of the kernel's network; one of a link that is not there has nothing to be set.
fn set(name: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys/net").join(name);
    match std::fs::write(&path, value) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::Write { path, source: error }),
        _ => Ok(()),
    }
}

/// A leftover that stays is worth a line.
fn told(removed: Result<()>) {
    if let Err(error) = removed {
        tracing::warn!("a leftover of a former life stays: {error}");
    }
}
