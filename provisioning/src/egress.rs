//! What functions may reach besides the gateway.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::Invalid;

/// `[egress]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    /// Whether all of the world may be reached. Without it, what `allow` says, and the servers of names.
    pub world: bool,
    /// Whether the machine's NATS server may be reached.
    pub nats: bool,
    /// What may be reached in any case.
    pub allow: Vec<Destination>,
}

impl Default for Egress {
    fn default() -> Self {
        Self { world: true, nats: false, allow: Vec::new() }
    }
}

/// An address or a network of IPv4, and one port or all: `10.0.0.7`, `10.0.0.7:5432`, `10.1.0.0/16`, `0.0.0.0/0:443`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    network: Ipv4Addr,
    prefix: u8,
    port: Option<u16>,
}

/// What no entry can open, and why.
const CLOSED: [(Ipv4Addr, u8, &str); 4] = [
    (
        Ipv4Addr::new(169, 254, 0, 0),
        16,
        "is in 169.254.0.0/16, where clouds hand out the machine's own passwords (metadata): that stays closed to functions",
    ),
    (
        Ipv4Addr::new(127, 0, 0, 0),
        8,
        "is in 127.0.0.0/8: there each function reaches itself, and nobody else",
    ),
    (Ipv4Addr::new(224, 0, 0, 0), 3, "is no address of one machine, expected one that can be called"),
    (Ipv4Addr::new(0, 0, 0, 0), 8, "is no address of one machine, expected one that can be called"),
];

impl Destination {
    /// The first address.
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// How many bits all of its addresses share.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The port of TCP and UDP; nothing: all ports, and all protocols.
    pub fn port(self) -> Option<u16> {
        self.port
    }

    /// Whether an address and its port are what this says.
    pub fn covers(self, address: Ipv4Addr, port: u16) -> bool {
        first(address, self.prefix) == self.network && self.port.is_none_or(|own| own == port)
    }

    fn is_within(self, network: Ipv4Addr, prefix: u8) -> bool {
        self.prefix >= prefix && first(self.network, prefix) == network
    }
}

/// The first address of the network of that size that an address is in.
fn first(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let rest = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    Ipv4Addr::from(u32::from(address) & !rest)
}

impl FromStr for Destination {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = || {
            Invalid(
                "is not what functions can be allowed to reach, expected an address or a network of IPv4 and perhaps a \
                 port, such as \"10.0.0.7\", \"10.0.0.7:5432\" or \"10.1.0.0/16\"; a name can stand for other addresses \
                 tomorrow, and is not asked for"
                    .to_owned(),
            )
        };
        let (place, port) = match text.split_once(':') {
            Some((place, port)) => {
                let port = port.parse().ok().filter(|port| *port > 0 && is_number(text, ':'));
                (place, Some(port.ok_or_else(refused)?))
            }
            None => (text, None),
        };
        let (address, prefix) = match place.split_once('/') {
            Some((address, prefix)) => {
                let prefix: Option<u8> = prefix.parse().ok().filter(|_| is_number(place, '/'));
                (address, prefix.filter(|prefix| *prefix <= 32).ok_or_else(refused)?)
            }
            None => (place, 32),
        };
        let address: Ipv4Addr = address.parse().map_err(|_| refused())?;
        let network = first(address, prefix);
        if network != address {
            return Err(Invalid(format!(
                "is neither one address nor a network, expected \"{address}\" or \"{network}/{prefix}\""
            )));
        }
        let destination = Self { network, prefix, port };
        match CLOSED.iter().find(|(network, prefix, _)| destination.is_within(*network, *prefix)) {
            Some((_, _, why)) => Err(Invalid((*why).to_owned())),
            None => Ok(destination),
        }
    }
}

/// Whether there are only digits behind the first of these characters: Rust's own parser takes `+1`, too.
fn is_number(text: &str, behind: char) -> bool {
    text.split_once(behind).is_some_and(|(_, number)| number.bytes().all(|b| b.is_ascii_digit()))
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.network)?;
        if self.prefix < 32 {
            write!(f, "/{}", self.prefix)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_covered() {
        for (text, address, port, wanted) in [
            ("10.0.0.7", [10, 0, 0, 7], 80, true),
            ("10.0.0.7", [10, 0, 0, 8], 80, false),
            ("10.0.0.7:443", [10, 0, 0, 7], 443, true),
            ("10.0.0.7:443", [10, 0, 0, 7], 80, false),
            ("10.1.0.0/16:443", [10, 1, 255, 1], 443, true),
            ("0.0.0.0/0", [192, 0, 2, 1], 1, true),
        ] {
            let destination: Destination = text.parse().unwrap();
            assert_eq!(destination.covers(address.into(), port), wanted, "{text} {address:?} {port}");
        }
    }

    #[test]
    fn destinations() {
        for good in
            ["10.0.0.7", "10.0.0.7:5432", "10.1.0.0/16", "10.1.0.0/16:53", "0.0.0.0/0:443", "168.0.0.0/5"]
        {
            assert_eq!(good.parse::<Destination>().map(|found| found.to_string()), Ok(good.to_owned()));
        }
        let one: Destination = "10.1.0.9/32".parse().unwrap();
        assert_eq!((one.to_string().as_str(), one.prefix(), one.port()), ("10.1.0.9", 32, None));
        let all: Destination = "0.0.0.0/0".parse().unwrap();
        assert_eq!((all.network(), all.prefix()), (Ipv4Addr::UNSPECIFIED, 0));
    }

    #[test]
    fn what_is_refused_and_why() {
        for (bad, why) in [
            ("", "is not what functions can be allowed"),
            ("db.example.org", "is not what functions can be allowed"),
            ("10.0.0.7:", "is not what functions can be allowed"),
            ("10.0.0.7:0", "is not what functions can be allowed"),
            ("10.0.0.7:+1", "is not what functions can be allowed"),
            ("10.0.0.7:65536", "is not what functions can be allowed"),
            ("10.0.0.7:5432/tcp", "is not what functions can be allowed"),
            ("10.0.0.0/33", "is not what functions can be allowed"),
            ("10.0.0.0/+8", "is not what functions can be allowed"),
            ("10.0.0.0/", "is not what functions can be allowed"),
            ("10.0.0.0:80/8", "is not what functions can be allowed"),
            ("10.0/8", "is not what functions can be allowed"),
            ("[fd00::1]:80", "is not what functions can be allowed"),
            ("fd00::1", "is not what functions can be allowed"),
            ("10.1.0.5/16", "is neither one address nor a network, expected \"10.1.0.5\" or \"10.1.0.0/16\""),
            ("0.0.0.1/0", "is neither one address nor a network, expected \"0.0.0.1\" or \"0.0.0.0/0\""),
            ("169.254.169.254", "is in 169.254.0.0/16, where"),
            ("169.254.169.254:80", "is in 169.254.0.0/16, where"),
            ("169.254.0.0/16", "is in 169.254.0.0/16, where"),
            ("127.0.0.1:4222", "is in 127.0.0.0/8: "),
            ("224.0.0.251", "is no address of one machine"),
            ("255.255.255.255", "is no address of one machine"),
            ("0.0.0.0", "is no address of one machine"),
        ] {
            let said = bad.parse::<Destination>().unwrap_err().to_string();
            assert!(said.starts_with(why), "{bad}: {said}");
        }
    }
}
