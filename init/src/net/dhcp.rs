//! Questions to DHCPv4 servers: each ends, with an answer or without one.

use std::net::Ipv4Addr;
use std::time::Duration;

use mozim::{DhcpV4Client, DhcpV4Config, DhcpV4Lease, DhcpV4State};

use super::lease::Held;
use super::{Link, wrong};
use crate::error::Result;

/// How long any server may take to give an address. The client asks less and less often; after this time it begins
/// anew, so that a server that comes back is found within a quarter of a minute and not after a whole one.
const ASK_LIMIT: Duration = Duration::from_secs(30);
/// How long one may take to say whether an address is still ours: enough for three questions.
const CONFIRM_LIMIT: Duration = Duration::from_secs(15);

/// What came of a question.
#[derive(Debug)]
pub(super) enum Answer {
    /// The address is ours, from now on.
    Given(Held),
    /// That address is not for us here.
    Refused,
    /// Nobody answered, or nobody to the end.
    Silent,
}

/// Asks for any address.
pub(super) async fn ask(link: &Link, hostname: &str) -> Result<Answer> {
    let mut client = client(link, hostname, None).await?;
    let mut offered = false;
    let given = async {
        loop {
            match client.run().await.map_err(wrong("ask for an address", &link.name))? {
                DhcpV4State::Done(given) => return Ok(Answer::Given(Held::new(&given))),
                state => offered = state == DhcpV4State::Selecting,
            }
        }
    };
    let answer = tokio::time::timeout(ASK_LIMIT, given).await;
    if answer.is_err() && offered {
        tracing::warn!("the dhcp server of {} offers an address and does not give it", link.name);
    }
    answer.unwrap_or(Ok(Answer::Silent))
}

/// Asks whether an address may be ours (again). It is the question of a machine that was restarted (INIT-REBOOT, RFC
/// 2131, 4.3.2), for renewals too: any server that knows the network answers it, and a refusal is heard at once.
pub(super) async fn confirm(link: &Link, hostname: &str, address: Ipv4Addr) -> Result<Answer> {
    let mut wish = DhcpV4Lease::default();
    wish.yiaddr = address;
    let mut client = client(link, hostname, Some(wish)).await?;
    match tokio::time::timeout(CONFIRM_LIMIT, client.run()).await {
        Ok(state) => match state.map_err(wrong("renew the address", &link.name))? {
            DhcpV4State::Done(given) => Ok(Answer::Given(Held::new(&given))),
            _ => Ok(Answer::Refused),
        },
        Err(_) => Ok(Answer::Silent),
    }
}

async fn client(link: &Link, hostname: &str, wish: Option<DhcpV4Lease>) -> Result<DhcpV4Client> {
    let mut config = DhcpV4Config::new(&link.name);
    config.set_iface_index(link.index);
    config.set_iface_mac_raw(&link.mac).map_err(wrong("set up dhcp", &link.name))?;
    config.use_mac_as_client_id();
    config.set_timeout_sec(0);
    if !hostname.is_empty() {
        config.set_host_name(hostname);
    }
    DhcpV4Client::init(config, wish).await.map_err(wrong("start dhcp", &link.name))
}
