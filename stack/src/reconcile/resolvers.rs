//! The servers that the machine asks for names, as its resolv.conf has them (resolv.conf(5)).

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

/// Those that functions can reach: of IPv4, and not the machine's own, which answer nobody else. A file that is not there,
/// or cannot be read, names none.
pub fn of(path: &Path) -> BTreeSet<Ipv4Addr> {
    parse(&fs::read_to_string(path).unwrap_or_default())
}

fn parse(text: &str) -> BTreeSet<Ipv4Addr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse().ok())?
    };
    let own = |server: &Ipv4Addr| server.is_loopback() || server.is_unspecified();
    text.lines().filter_map(server).filter(|server| !own(server)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        let text = "# nameserver 192.0.2.1\nsearch example.org\nnameserver 192.0.2.54 # second\n\tnameserver\t192.0.2.53\n\
                    nameserver fe80::1%eth0\nnameserver 127.0.0.53\nnameserver 0.0.0.0\nnameserver\nnameserver x\n\
                    nameservers 192.0.2.2\nnameserver 192.0.2.53\r\n";
        let found: Vec<String> = parse(text).iter().map(Ipv4Addr::to_string).collect();
        assert_eq!(found, ["192.0.2.53", "192.0.2.54"]);
        assert!(parse("").is_empty() && of(Path::new("/nowhere/resolv.conf")).is_empty());
    }
}
