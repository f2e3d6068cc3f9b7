//! One link's DHCPv4 lease: asking, keeping, applying, losing.

use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::TryStreamExt;
use mozim::{DhcpV4Client, DhcpV4Config, DhcpV4Lease, DhcpV4State};
use netlink_packet_route::address::AddressAttribute;
use rtnetlink::RouteMessageBuilder;

use super::{Link, Progress, Shared, wrong};
use crate::error::{Error, Result};

/// Pause after a failure that is not a timeout of the protocol.
const AGAIN: Duration = Duration::from_secs(3);
/// How long a server has to give what it offered.
const SELECTING_LIMIT: Duration = Duration::from_secs(60);
/// Metric of the default route: behind what a person sets, and one more for each further link.
const METRIC: u32 = 1024;

/// What of a lease concerns us.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// What outlives one client of the protocol.
#[derive(Default)]
struct Memory {
    /// What the server gave last: the next client asks for the same.
    last: Option<DhcpV4Lease>,
    /// What the link has now.
    applied: Option<Lease>,
}

/// Gets and keeps a lease for a link that has a cable. Ends with its task only.
pub(crate) async fn keep(shared: Shared, link: Link) {
    let mut memory = Memory::default();
    loop {
        if let Err(error) = follow(&shared, &link, &mut memory).await {
            tracing::warn!("{error}");
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// One client's life. Ends without an error when another one should begin at once.
async fn follow(shared: &Shared, link: &Link, memory: &mut Memory) -> Result<()> {
    let mut config = DhcpV4Config::new(&link.name);
    config.set_iface_index(link.index);
    config.set_iface_mac_raw(&link.mac).map_err(wrong("set up dhcp", &link.name))?;
    config.use_mac_as_client_id();
    config.set_timeout_sec(0);
    let hostname = shared.board.status().hostname;
    if !hostname.is_empty() {
        config.set_host_name(&hostname);
    }
    // A first address does not wait for the name, which lies on a disk; the server learns it a moment later.
    let renamed = shared.board.until(|status| status.hostname != hostname);
    tokio::pin!(renamed);
    let start = DhcpV4Client::init(config, memory.last.take()).await;
    let mut client = start.map_err(wrong("start dhcp", &link.name))?;
    let mut patience = None;
    loop {
        let limit = async {
            match patience {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let state = tokio::select! {
            state = client.run() => state.map_err(wrong("dhcp", &link.name))?,
            () = limit => {
                tracing::warn!("the dhcp server of {} offers an address and does not give it", link.name);
                return Ok(());
            }
            // Not while it asks: an answer under way would be lost, and with it the seconds until the next question.
            () = &mut renamed, if memory.last.is_some() => return Ok(()),
        };
        patience = patience_of(&state);
        match state {
            DhcpV4State::Done(given) => {
                let lease = Lease::read(&given);
                memory.last = Some(*given);
                if memory.applied.as_ref() != Some(&lease) {
                    tracing::info!("{} has {}/{}", link.name, lease.address, lease.prefix);
                    apply(shared, link, &lease).await?;
                    memory.applied = Some(lease.clone());
                }
                shared.note(&link.name, Some(Progress::Bound(lease)));
            }
            // Expired or refused: the address belongs to somebody else now.
            DhcpV4State::InitReboot => {
                memory.last = None;
                if memory.applied.take().is_some() {
                    tracing::warn!("{} lost its address", link.name);
                    shared.note(&link.name, Some(Progress::Asking));
                    remove_addresses(shared, link, None).await?;
                }
            }
            DhcpV4State::Selecting | DhcpV4State::Renewing | DhcpV4State::Rebinding => {}
        }
    }
}

/// How long the client may stay in a state. It asks for what it was offered for ever, and takes no refusal for an
/// answer; its other states end by themselves or lose nothing by going on.
fn patience_of(state: &DhcpV4State) -> Option<Duration> {
    matches!(state, DhcpV4State::Selecting).then_some(SELECTING_LIMIT)
}

/// Sets address and routes; other IPv4 addresses of the link go.
async fn apply(shared: &Shared, link: &Link, lease: &Lease) -> Result<()> {
    let add = shared.handle.address().add(link.index, lease.address.into(), lease.prefix).replace();
    add.execute().await.map_err(wrong("set the address", &link.name))?;
    remove_addresses(shared, link, Some(lease.address)).await?;
    // A gateway must be reachable before a route can go through it: routes without one first.
    let (direct, through): (Vec<_>, Vec<_>) = lease.routes.iter().partition(|route| route.2.is_unspecified());
    for (destination, prefix, gateway) in direct.into_iter().chain(through) {
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(destination, prefix)
            .output_interface(link.index)
            .priority(METRIC + link.index);
        if !gateway.is_unspecified() {
            route = route.gateway(gateway);
        }
        let done = shared.handle.route().add(route.build()).replace().execute().await;
        done.map_err(wrong::<rtnetlink::Error>("set a route", &link.name))?;
    }
    Ok(())
}

/// Removes the link's IPv4 addresses but one; their routes go with them.
async fn remove_addresses(shared: &Shared, link: &Link, keep: Option<Ipv4Addr>) -> Result<(), Error> {
    let list = shared.handle.address().get().set_link_index_filter(link.index).execute();
    let addresses: Vec<_> = list.try_collect().await.map_err(wrong("list addresses", &link.name))?;
    for message in addresses {
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(std::net::IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
        if message.header.index == link.index && address.is_some() && address != keep {
            let done = shared.handle.address().del(message).execute().await;
            done.map_err(wrong::<rtnetlink::Error>("remove an address", &link.name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_offer_that_is_not_given_is_left() {
        assert_eq!(patience_of(&DhcpV4State::Selecting), Some(SELECTING_LIMIT));
        for state in [DhcpV4State::InitReboot, DhcpV4State::Renewing, DhcpV4State::Rebinding] {
            assert_eq!(patience_of(&state), None);
        }
        assert_eq!(patience_of(&DhcpV4State::Done(Box::default())), None);
    }

    #[test]
    fn the_router_is_the_default_route() {
        let mut given = DhcpV4Lease::default();
        given.subnet_mask = Ipv4Addr::new(255, 255, 252, 0);
        given.gateways = Some(vec![Ipv4Addr::new(10, 0, 2, 2)]);
        let lease = Lease::read(&given);
        assert_eq!(lease.prefix, 22);
        assert_eq!(lease.routes, [(Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::new(10, 0, 2, 2))]);
    }
}
