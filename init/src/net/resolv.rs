//! `/etc/resolv.conf`, from the leases that are in force.

use std::fmt::Write as _;
use std::path::Path;

use super::Lease;
use crate::error::Result;
use crate::file;

/// The resolver reads no more (resolv.conf(5), MAXNS).
const SERVERS: usize = 3;

/// Writes the file, if it says something else than before. Without a lease what was there stays: an old name server
/// may answer, none never does.
pub(super) fn write(path: &Path, leases: &[&Lease]) -> Result<()> {
    let Some(text) = render(leases) else { return Ok(()) };
    if file::read(path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    file::replace(path, text.as_bytes(), 0o644)
}

fn render(leases: &[&Lease]) -> Option<String> {
    // A server's text ends up in a file: only what a domain can be made of.
    let is_domain = |name: &&String| {
        !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_')
    };
    let mut domains: Vec<&str> = Vec::new();
    for domain in leases.iter().flat_map(|lease| &lease.domains).filter(is_domain) {
        if !domains.contains(&domain.as_str()) {
            domains.push(domain);
        }
    }
    let mut servers = leases.iter().flat_map(|lease| &lease.servers).take(SERVERS).peekable();
    servers.peek()?;
    let mut text = String::from("# Written at each change of the network.\n");
    if !domains.is_empty() {
        let _ = writeln!(text, "search {}", domains.join(" "));
    }
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn renders_servers_and_clean_domains() {
        let lease = Lease {
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            routes: Vec::new(),
            servers: [1, 2, 3, 4].map(|n| Ipv4Addr::new(10, 0, 2, n)).to_vec(),
            domains: vec!["farm.example".into(), "x\nnameserver 6.6.6.6".into(), "farm.example".into()],
        };
        let text = render(&[&lease]).unwrap();
        assert!(text.ends_with(
            "search farm.example\nnameserver 10.0.2.1\nnameserver 10.0.2.2\nnameserver 10.0.2.3\n"
        ));
        assert_eq!(render(&[]), None);
    }
}
