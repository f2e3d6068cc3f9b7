//! Links of the host's network namespace.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use netlink_packet_route::link::LinkAttribute;
use nix::errno::Errno;
use rtnetlink::{Error as NetlinkError, Handle, LinkBridge, LinkUnspec};

use super::Settings;
use crate::error::{Error, Result};

/// The hardware address that goes with an address: locally administered, so that a neighbour's cache stays right when
/// an address comes back.
pub fn hardware_address(address: Ipv4Addr) -> Vec<u8> {
    let [a, b, c, d] = address.octets();
    vec![0x02, 0x0f, a, b, c, d]
}

/// Makes the bridge, its address, and sets it up.
pub async fn ensure_bridge(host: &Handle, settings: &Settings) -> Result<()> {
    let name = &settings.bridge;
    let gateway = settings.subnet.gateway();
    // A bridge takes the lowest hardware address of its ports unless it has its own, and would change it all the time.
    let message = LinkBridge::new(name).address(hardware_address(gateway)).up().build();
    present(host.link().add(message).execute().await, || format!("add bridge {name}"))?;
    let index = index(host, name).await?;
    let add = host.address().add(index, IpAddr::V4(gateway), settings.subnet.prefix());
    present(add.execute().await, || format!("add address {gateway} to {name}"))?;
    let up = LinkUnspec::new_with_index(index).up().build();
    host.link()
        .set(up)
        .execute()
        .await
        .map_err(|source| Error::Netlink { act: format!("set {name} up"), source })
}

/// A link's number.
pub async fn index(host: &Handle, name: &str) -> Result<u32> {
    let error = |source| Error::Netlink { act: format!("look up {name}"), source };
    let link = host.link().get().match_name(name).execute().try_next().await.map_err(error)?;
    link.map(|link| link.header.index).ok_or_else(|| error(NetlinkError::RequestFailed))
}

/// All links' names.
pub async fn names(host: &Handle) -> Result<Vec<String>> {
    let error = |source| Error::Netlink { act: "list links".to_owned(), source };
    let links: Vec<_> = host.link().get().execute().try_collect().await.map_err(error)?;
    let name = |attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    };
    Ok(links.into_iter().filter_map(|link| link.attributes.into_iter().find_map(name)).collect())
}

/// Removes a link; one that is not there is fine.
pub async fn remove(host: &Handle, name: &str) -> Result<()> {
    let error = |source| Error::Netlink { act: format!("remove {name}"), source };
    let index = match host.link().get().match_name(name).execute().try_next().await {
        Ok(Some(link)) => link.header.index,
        Ok(None) => return Ok(()),
        Err(source) if is(&source, Errno::ENODEV) => return Ok(()),
        Err(source) => return Err(error(source)),
    };
    match host.link().del(index).execute().await {
        Err(source) if !is(&source, Errno::ENODEV) => Err(error(source)),
        _ => Ok(()),
    }
}

/// What is there already is as good as made.
pub fn present(result: Result<(), NetlinkError>, act: impl FnOnce() -> String) -> Result<()> {
    match result {
        Err(source) if !is(&source, Errno::EEXIST) => Err(Error::Netlink { act: act(), source }),
        _ => Ok(()),
    }
}

fn is(error: &NetlinkError, errno: Errno) -> bool {
    matches!(error, NetlinkError::NetlinkError(message) if message.raw_code() == -(errno as i32))
}
