//! Where an answer may be sent. Whoever can call a function can name any URL: none of them leads to what only the machine
//! itself reaches.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hyper::Uri;
use nix::ifaddrs::getifaddrs;
use provisioning::Egress;

use crate::network::Subnet;

/// Names of the gateway, as functions know it.
const GATEWAY: [&str; 2] = ["gateway", "gateway.openfaas"];
/// Its port.
const PORT: u16 = 8080;

/// How long a name may take to be resolved.
const RESOLVE: Duration = Duration::from_secs(10);

/// Metadata services of clouds that are in no range of their own.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Where an answer goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Destination {
    /// To a function, through our own gateway.
    Gateway,
    /// To one of these addresses.
    Elsewhere(Vec<SocketAddr>),
}

/// Finds it.
///
/// # Errors
/// It is nowhere, or nowhere that an answer may be sent to; in words.
pub async fn find(uri: &Uri, functions: Subnet, egress: &Egress) -> Result<Destination, String> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16();
    let is_call = ["/function/", "/async-function/"].iter().any(|prefix| uri.path().starts_with(prefix));
    let plain = uri.scheme_str() == Some("http");
    if plain && GATEWAY.contains(&host) {
        return match (is_call, port.unwrap_or(PORT)) {
            (true, PORT) => Ok(Destination::Gateway),
            _ => Err(format!(
                "the gateway takes answers at http://gateway:{PORT}/function/NAME and /async-function/NAME alone"
            )),
        };
    }
    let wanted = port.unwrap_or(if plain { 80 } else { 443 });
    let resolved = tokio::time::timeout(RESOLVE, tokio::net::lookup_host((host, wanted))).await;
    let found: Vec<SocketAddr> = match resolved {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => return Err(format!("{host} cannot be resolved: {error}")),
        Err(_) => return Err(format!("{host} was not resolved in {} s", RESOLVE.as_secs())),
    };
    let own = own();
    if plain
        && is_call
        && wanted == PORT
        && found.iter().any(|address| own.contains(&address.ip().to_canonical()))
    {
        return Ok(Destination::Gateway);
    }
    let (open, closed): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| may(address.ip().to_canonical(), &own, functions));
    // An answer is a function's, and goes where functions may go.
    let (open, kept): (Vec<_>, Vec<_>) = open.into_iter().partition(|address| reaches(*address, egress));
    if open.is_empty()
        && let Some(address) = kept.first()
    {
        return Err(format!("{host} is {address}, which [egress] of bothy.toml keeps closed to functions"));
    }
    match (open.is_empty(), closed.first()) {
        (false, _) => Ok(Destination::Elsewhere(open)),
        (true, Some(address)) => Err(format!(
            "{host} is {}: no answer is sent to the machine itself, its functions, link-local addresses and metadata \
             services; a function is http://gateway:{PORT}/function/NAME",
            address.ip()
        )),
        (true, None) => Err(format!("{host} has no address")),
    }
}

/// What `[egress]` says.
fn reaches(address: SocketAddr, egress: &Egress) -> bool {
    let allowed = |v4: Ipv4Addr| egress.allow.iter().any(|allowed| allowed.covers(v4, address.port()));
    egress.world || matches!(address.ip().to_canonical(), IpAddr::V4(v4) if allowed(v4))
}

/// The machine's own addresses.
fn own() -> Vec<IpAddr> {
    let interfaces = getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    addresses.collect()
}

fn may(address: IpAddr, own: &[IpAddr], functions: Subnet) -> bool {
    let closed = match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_unspecified()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets()[0] == 0
                || functions.contains(v4)
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast()
        }
    };
    !closed && !own.contains(&address) && !METADATA.contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn found(uri: &str) -> Result<Destination, String> {
        find(&uri.parse().unwrap(), "10.62.0.0/16".parse().unwrap(), &Egress::default()).await
    }

    #[tokio::test]
    async fn what_is_reached() {
        for uri in [
            "http://gateway:8080/function/f",
            "http://gateway/async-function/f.dev?x",
            "http://gateway.openfaas:8080/function/f",
            "http://127.0.0.1:8080/function/f",
        ] {
            assert_eq!(found(uri).await, Ok(Destination::Gateway), "{uri}");
        }
        let elsewhere = |text: &str| Ok(Destination::Elsewhere(vec![text.parse().unwrap()]));
        assert_eq!(found("http://192.0.2.7/x").await, elsewhere("192.0.2.7:80"));
        assert_eq!(found("https://192.0.2.7:8443/").await, elsewhere("192.0.2.7:8443"));
        assert_eq!(found("https://[2001:db8::1]/").await, elsewhere("[2001:db8::1]:443"));
    }

    #[tokio::test]
    async fn where_functions_may_not_go_no_answer_goes() {
        let egress =
            Egress { world: false, allow: vec!["192.0.2.7:80".parse().unwrap()], ..Egress::default() };
        let functions: Subnet = "10.62.0.0/16".parse().unwrap();
        let found = async |uri: &str| find(&uri.parse().unwrap(), functions, &egress).await;
        assert!(
            found("http://192.0.2.7/x").await.is_ok() && found("http://gateway/function/f").await.is_ok()
        );
        for closed in ["http://192.0.2.8/x", "https://192.0.2.7/x", "http://[2001:db8::1]/"] {
            assert!(found(closed).await.unwrap_err().contains("[egress]"), "{closed}");
        }
    }

    #[tokio::test]
    async fn what_is_not() {
        for uri in [
            "http://gateway:8080/system/functions",
            "http://gateway:4222/function/f",
            "http://127.0.0.1:8080/system/functions",
            "http://127.0.0.1:4222/function/f",
            "http://127.9.9.9/",
            "http://0.0.0.0:8080/",
            "http://0.1.2.3/",
            "http://169.254.169.254/latest/meta-data",
            "http://168.63.129.16/",
            "http://100.100.100.200/",
            "http://[::1]:8082/metrics",
            "http://[::ffff:127.0.0.1]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://10.62.0.5:8080/",
            "http://224.0.0.1/",
        ] {
            assert!(found(uri).await.is_err(), "{uri}");
        }
    }
}
