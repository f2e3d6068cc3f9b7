//! A lease's address and routes on a link.

use std::net::Ipv4Addr;

use futures_util::TryStreamExt;
use netlink_packet_route::address::AddressAttribute;
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{Lease, Link, wrong};
use crate::error::Result;

/// Metric of the default route: behind what a person sets, and one more for each further link.
const METRIC: u32 = 1024;

/// Sets address and routes; other IPv4 addresses of the link go.
pub(super) async fn apply(handle: &Handle, link: &Link, lease: &Lease) -> Result<()> {
    let add = handle.address().add(link.index, lease.address.into(), lease.prefix).replace();
    add.execute().await.map_err(wrong("set the address", &link.name))?;
    remove(handle, link, Some(lease.address)).await?;
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
        let done = handle.route().add(route.build()).replace().execute().await;
        done.map_err(wrong::<rtnetlink::Error>("set a route", &link.name))?;
    }
    Ok(())
}

/// Removes the link's IPv4 addresses but one; their routes go with them.
pub(super) async fn remove(handle: &Handle, link: &Link, keep: Option<Ipv4Addr>) -> Result<()> {
    let list = handle.address().get().set_link_index_filter(link.index).execute();
    let addresses: Vec<_> = list.try_collect().await.map_err(wrong("list addresses", &link.name))?;
    for message in addresses {
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(std::net::IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
        if message.header.index == link.index && address.is_some() && address != keep {
            let done = handle.address().del(message).execute().await;
            done.map_err(wrong::<rtnetlink::Error>("remove an address", &link.name))?;
        }
    }
    Ok(())
}
