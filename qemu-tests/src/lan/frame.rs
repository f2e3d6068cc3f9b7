//! Ethernet frames: ARP (RFC 826), and UDP in IPv4 as far as DHCP needs it.

use std::net::Ipv4Addr;

/// The router's hardware address: locally administered.
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const EVERYBODY: [u8; 6] = [0xff; 6];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV4: [u8; 2] = [0x08, 0x00];
/// Ethernet, IPv4, and the lengths of their addresses.
const ARP_KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// What we understand of what a machine sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Arp(Arp),
    /// What came to a DHCP server's port.
    Dhcp(&'a [u8]),
}

/// Who asks for whom, or who says that he is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arp {
    pub request: bool,
    pub mac: [u8; 6],
    pub sender: Ipv4Addr,
    pub target: Ipv4Addr,
}

impl<'a> Frame<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let body = bytes.get(14..)?;
        match bytes.get(12..14)? {
            kind if kind == ARP => Some(Self::Arp(Arp {
                request: body.get(7)? == &1,
                mac: body.get(8..14)?.try_into().ok()?,
                sender: address(body, 14)?,
                target: address(body, 24)?,
            })),
            kind if kind == IPV4 => {
                let header = usize::from(body.first()? & 0xf) * 4;
                let udp = body.get(header..)?;
                let to_server = body.get(9)? == &17 && udp.get(2..4)? == [0, 67];
                to_server.then_some(Self::Dhcp(udp.get(8..)?))
            }
            _ => None,
        }
    }
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    bytes.get(at..at + 4)?.try_into().ok().map(|octets: [u8; 4]| octets.into())
}

fn ethernet(to: [u8; 6], kind: [u8; 2], body: &[u8]) -> Vec<u8> {
    [&to[..], &ROUTER, &kind, body].concat()
}

/// The router asks for an address.
pub(super) fn who_has(router: Ipv4Addr, address: Ipv4Addr) -> Vec<u8> {
    let body = [&ARP_KIND[..], &[0, 1], &ROUTER, &router.octets(), &[0; 6], &address.octets()];
    ethernet(EVERYBODY, ARP, &body.concat())
}

/// The router says that it has what a request is for.
pub(super) fn is_at(request: &Arp) -> Vec<u8> {
    let (ours, theirs) = (request.target.octets(), request.sender.octets());
    ethernet(request.mac, ARP, &[&ARP_KIND[..], &[0, 2], &ROUTER, &ours, &request.mac, &theirs].concat())
}

/// A message of a DHCP server to everybody: who asks has no address yet.
pub(super) fn udp(router: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
    // Without a checksum, which IPv4 allows.
    let udp = [&[0, 67, 0, 68][..], &length(8 + payload.len()), &[0, 0], payload].concat();
    let mut header = [
        &[0x45, 0][..],
        &length(20 + udp.len()),
        &[0, 0, 0, 0, 64, 17, 0, 0],
        &router.octets(),
        &Ipv4Addr::BROADCAST.octets(),
    ]
    .concat();
    let sum = checksum(&header);
    header.splice(10..12, sum);
    ethernet(EVERYBODY, IPV4, &[header, udp].concat())
}

/// RFC 1071.
fn checksum(header: &[u8]) -> [u8; 2] {
    let mut sum: u32 =
        header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_its_checksum_sums_up_to_nothing() {
        let frame = udp(Ipv4Addr::new(10, 77, 0, 1), b"x");
        assert_eq!(checksum(&frame[14..34]), [0, 0]);
        // To a client's port: nothing for a server.
        assert_eq!(Frame::parse(&frame), None);
    }

    #[test]
    fn arp_is_read_as_it_is_written() {
        let (router, machine) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let request = Arp { request: true, mac: ROUTER, sender: router, target: machine };
        assert_eq!(Frame::parse(&who_has(router, machine)), Some(Frame::Arp(request)));
        let asked = Arp { request: true, mac: [7; 6], sender: machine, target: router };
        let said = Arp { request: false, mac: ROUTER, sender: router, target: machine };
        assert_eq!(Frame::parse(&is_at(&asked)), Some(Frame::Arp(said)));
        assert_eq!(Frame::parse(&[0; 20]), None);
    }
}
