//! Which addresses are taken. The truth lies in the containers' labels; this is their set while we run.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 subnet: `10.62.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    network: u32,
    prefix: u8,
}

impl Subnet {
    /// Length of the prefix in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The bridge's own address: the first.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.network + 1)
    }

    fn last(self) -> u32 {
        self.network | (u32::MAX >> self.prefix)
    }

    /// Whether an address is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.network..=self.last()).contains(&u32::from(address))
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is no subnet, expected one such as 10.62.0.0/16 with a prefix from 16 to 29")
        };
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let network = u32::from(address);
        // Two bytes of an address name its link, so a subnet has no more than those two.
        let fits = (16..=29).contains(&prefix) && network & (u32::MAX >> prefix) == 0;
        if fits { Ok(Self { network, prefix }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

/// The addresses of a subnet that instances have.
#[derive(Debug)]
pub struct Addresses {
    subnet: Subnet,
    taken: BTreeSet<u32>,
    next: u32,
}

impl Addresses {
    /// All free.
    pub fn new(subnet: Subnet) -> Self {
        Self { subnet, taken: BTreeSet::new(), next: subnet.network + 2 }
    }

    /// Takes a given one; one of another subnet (the setting changed) is not ours to hand out anyway.
    pub fn take(&mut self, address: Ipv4Addr) {
        if self.subnet.contains(address) {
            self.taken.insert(address.into());
        }
    }

    /// Takes the next free one, going round, so that an address rests before somebody else has it.
    pub fn allocate(&mut self) -> Option<Ipv4Addr> {
        let (first, end) = (self.subnet.network + 2, self.subnet.last());
        let free = (self.next..end).chain(first..self.next).find(|address| !self.taken.contains(address))?;
        self.taken.insert(free);
        self.next = if free + 1 < end { free + 1 } else { first };
        Some(free.into())
    }

    /// Gives one back.
    pub fn free(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address.into());
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn subnets() {
        let subnet: Subnet = "10.62.0.0/16".parse().unwrap();
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 62, 0, 1));
        assert_eq!(subnet.to_string(), "10.62.0.0/16");
        for bad in ["", "10.62.0.0", "10.62.0.1/16", "10.62.0.0/15", "10.62.0.0/30", "10.62.0/16", "a/16"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn goes_round_and_ends() {
        let mut addresses = Addresses::new("10.9.0.0/29".parse().unwrap());
        let all: Vec<_> = std::iter::from_fn(|| addresses.allocate()).map(|a| a.octets()[3]).collect();
        assert_eq!(all, [2, 3, 4, 5, 6]);
        addresses.free(Ipv4Addr::new(10, 9, 0, 4));
        assert_eq!(addresses.allocate(), Some(Ipv4Addr::new(10, 9, 0, 4)));
        addresses.free(Ipv4Addr::new(10, 9, 0, 2));
        addresses.free(Ipv4Addr::new(10, 9, 0, 6));
        assert_eq!(addresses.allocate(), Some(Ipv4Addr::new(10, 9, 0, 6)));
    }

    proptest! {
        #[test]
        fn never_hands_out_what_is_taken(steps in prop::collection::vec((any::<bool>(), 0u8..8), 0..60)) {
            let mut addresses = Addresses::new("10.9.0.0/28".parse().unwrap());
            let mut held: Vec<Ipv4Addr> = Vec::new();
            for (take, which) in steps {
                if take {
                    if let Some(address) = addresses.allocate() {
                        prop_assert!(!held.contains(&address));
                        held.push(address);
                    }
                } else if !held.is_empty() {
                    addresses.free(held.remove(which as usize % held.len()));
                }
                prop_assert_eq!(addresses.taken(), held.len());
            }
        }
    }
}
