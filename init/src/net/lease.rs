//! A DHCPv4 lease: what of it concerns us, for how long it is ours, and what a new supervisor finds of it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mozim::DhcpV4Lease;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::file;

/// What a lease says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// Our address.
    pub address: Ipv4Addr,
    /// Its prefix length.
    pub prefix: u8,
    /// Routes: destination, prefix length, gateway.
    pub routes: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    /// Name servers.
    pub servers: Vec<Ipv4Addr>,
    /// Domains to search.
    pub domains: Vec<String>,
}

impl Lease {
    /// Takes what a server said. Classless routes, where given, replace the router option (RFC 3442).
    fn read(lease: &DhcpV4Lease) -> Self {
        let prefix = |mask: Ipv4Addr| u32::from(mask).leading_ones() as u8;
        let routes = match &lease.classless_routes {
            Some(routes) => {
                routes.iter().map(|route| (route.destination, route.prefix_length, route.router)).collect()
            }
            None => {
                let first = lease.gateways.iter().flatten().next();
                first.map(|gateway| (Ipv4Addr::UNSPECIFIED, 0, *gateway)).into_iter().collect()
            }
        };
        let search = lease.domain_search.iter().flatten().chain(&lease.domain_name);
        Self {
            address: lease.yiaddr,
            prefix: prefix(lease.subnet_mask),
            routes,
            servers: lease.dns_srvs.iter().flatten().copied().collect(),
            domains: search.cloned().collect(),
        }
    }
}

/// A lease that was given to us, and its times by the clock that nobody sets (CLOCK_BOOTTIME, in seconds).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// What it says.
    pub lease: Lease,
    /// From then on it is asked for anew.
    renew: u64,
    /// From then on the address is somebody else's.
    ends: u64,
}

impl Held {
    /// A lease that was given now.
    pub(super) fn new(given: &DhcpV4Lease) -> Self {
        let now = now();
        let (renew, ends) = (now + u64::from(given.t1_sec), now + u64::from(given.lease_time_sec));
        Self { lease: Lease::read(given), renew, ends }
    }

    /// How long nothing has to be asked.
    pub(super) fn rests(&self) -> Duration {
        Duration::from_secs(self.renew.saturating_sub(now()))
    }

    /// How long it is ours.
    pub(super) fn left(&self) -> Duration {
        Duration::from_secs(self.ends.saturating_sub(now()))
    }

    /// The lease that a supervisor before this one held for a card, if it is still ours.
    pub(super) fn load(run: &Path, mac: [u8; 6]) -> Option<Self> {
        let held: Self = serde_json::from_str(&file::read(path(run, mac)).ok()?).ok()?;
        (!held.left().is_zero()).then_some(held)
    }

    /// Notes it for the next supervisor.
    pub(super) fn save(&self, run: &Path, mac: [u8; 6]) -> Result<()> {
        let path = path(run, mac);
        if let Some(folder) = path.parent() {
            file::make_dir(folder, 0o755)?;
        }
        file::replace(&path, &serde_json::to_vec(self).unwrap_or_default(), 0o644)
    }
}

/// Forgets what was saved: the address is not ours any more.
pub(super) fn forget(run: &Path, mac: [u8; 6]) {
    let _ = std::fs::remove_file(path(run, mac));
}

fn path(run: &Path, mac: [u8; 6]) -> PathBuf {
    run.join("leases").join(format!("{}.json", mac.map(|byte| format!("{byte:02x}")).concat()))
}

fn now() -> u64 {
    u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> DhcpV4Lease {
        let mut given = DhcpV4Lease::default();
        given.yiaddr = Ipv4Addr::new(10, 0, 2, 15);
        given.subnet_mask = Ipv4Addr::new(255, 255, 252, 0);
        given.gateways = Some(vec![Ipv4Addr::new(10, 0, 2, 2)]);
        (given.t1_sec, given.lease_time_sec) = (50, 100);
        given
    }

    #[test]
    fn the_router_is_the_default_route() {
        let lease = Lease::read(&given());
        assert_eq!(lease.prefix, 22);
        assert_eq!(lease.routes, [(Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::new(10, 0, 2, 2))]);
    }

    #[test]
    fn times_count_from_when_it_was_given() {
        let held = Held::new(&given());
        assert!((49..=50).contains(&held.rests().as_secs()), "{held:?}");
        assert!((99..=100).contains(&held.left().as_secs()), "{held:?}");
        let past = Held { renew: 0, ends: 0, ..held };
        assert!(past.rests().is_zero() && past.left().is_zero());
    }

    #[test]
    fn the_next_supervisor_finds_it_until_it_ends() {
        let run = tempfile::tempdir().unwrap();
        let held = Held::new(&given());
        held.save(run.path(), [1; 6]).unwrap();
        assert_eq!(Held::load(run.path(), [1; 6]), Some(held.clone()));
        assert_eq!(Held::load(run.path(), [2; 6]), None);
        Held { ends: 0, ..held }.save(run.path(), [1; 6]).unwrap();
        assert_eq!(Held::load(run.path(), [1; 6]), None);
        forget(run.path(), [1; 6]);
        assert!(!path(run.path(), [1; 6]).exists());
    }
}
