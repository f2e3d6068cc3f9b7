//! The firewall's part: our own table, replaced as a whole in one transaction. Nobody else's rules are touched.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Settings;
use crate::error::{Error, Result};

/// The rules. (Chain names must not be words of nft's language.)
///
/// - What functions send into the world goes out under the machine's own address.
/// - Nobody outside reaches a function but through the gateway, and no function another one, nor addresses that belong
///   to one link alone (a cloud's metadata service is there). A function has no neighbours on its link, so that what it
///   sends to another one comes by here; the bridge's ports are isolated besides.
/// - Of the machine itself a function reaches the gateway's port, and echo requests.
fn ruleset(settings: &Settings) -> String {
    let Settings { table, subnet, bridge, port, .. } = settings;
    // The first line makes sure that there is something to delete.
    format!(
        "table inet {table}\n\
         delete table inet {table}\n\
         table inet {table} {{\n\
         \tchain functions_outward {{\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\tip saddr {subnet} oifname != \"{bridge}\" masquerade;\n\
         \t}}\n\
         \tchain functions_through {{\n\
         \t\ttype filter hook forward priority filter; policy accept;\n\
         \t\tiifname \"{bridge}\" oifname \"{bridge}\" drop;\n\
         \t\tiifname \"{bridge}\" ip daddr 169.254.0.0/16 drop;\n\
         \t\toifname \"{bridge}\" ct state established,related accept;\n\
         \t\toifname \"{bridge}\" drop;\n\
         \t}}\n\
         \tchain functions_inward {{\n\
         \t\ttype filter hook input priority filter; policy accept;\n\
         \t\tiifname != \"{bridge}\" accept;\n\
         \t\tct state established,related accept;\n\
         \t\ttcp dport {port} accept;\n\
         \t\tmeta l4proto icmp accept;\n\
         \t\tdrop;\n\
         \t}}\n\
         }}\n"
    )
}

/// Puts our table in place of the one that may be there.
pub async fn apply(settings: &Settings) -> Result<()> {
    if settings.nft.is_empty() {
        return Ok(());
    }
    let error = |reason: String| Error::Nft { program: settings.nft.clone(), reason };
    let mut child = Command::new(&settings.nft)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| error(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Where nft ended early its own words are the better error.
        let _ = stdin.write_all(ruleset(settings).as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(|e| error(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    Err(error(format!("{}: {said}", output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_transaction_on_our_own_table() {
        let settings = Settings {
            bridge: "of0".into(),
            subnet: "10.62.0.0/16".parse().unwrap(),
            netns: "/run/netns".into(),
            nft: "nft".into(),
            table: "bothy".into(),
            port: 8080,
        };
        let rules = ruleset(&settings);
        assert!(rules.starts_with("table inet bothy\ndelete table inet bothy\n"));
        assert!(rules.contains("ip saddr 10.62.0.0/16 oifname != \"of0\" masquerade;"));
        assert!(rules.contains("iifname \"of0\" ip daddr 169.254.0.0/16 drop;"));
        assert!(rules.contains("tcp dport 8080 accept;"));
        assert!(!rules.contains("flush ruleset"));
    }
}
