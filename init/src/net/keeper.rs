//! One link's address: asked for, kept, renewed, lost; whatever happens to its cable and to its server.

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;

use super::dhcp::{self, Answer};
use super::lease::{self, Held};
use super::{Cable, Link, Progress, Shared, address};
use crate::error::Result;

/// Pause after a failure that is not a server's silence.
const AGAIN: Duration = Duration::from_secs(3);
/// Longest pause between two questions to a server that does not answer.
const PAUSE: Duration = Duration::from_secs(300);
/// Where leases are noted for the next supervisor.
const RUN: &str = "/run/bothy";

/// What a link's task knows.
struct Keeper {
    shared: Shared,
    link: Link,
    /// What holds the address that the link has.
    held: Option<Held>,
    /// Whether the cable may lead to another network than the one of the lease.
    moved: bool,
    /// Whether nobody answered the last time.
    silent: bool,
    /// The name that the server was told.
    hostname: String,
}

/// What comes next for a link that has a cable.
enum Next {
    /// The lease is over.
    Ended,
    /// There was an answer, or none, to a question for the address that the link has.
    Confirmed(Answer),
    /// The same, for any address.
    Asked(Answer),
}

/// Keeps an address for a link. Ends with its task only.
pub(super) async fn keep(shared: Shared, link: Link, mut cable: watch::Receiver<Cable>) {
    let held = Held::load(Path::new(RUN), link.mac);
    let hostname = shared.board.status().hostname;
    let mut keeper = Keeper { shared, link, held, moved: true, silent: false, hostname };
    if let Err(error) = keeper.resume().await {
        tracing::warn!("{error}");
    }
    loop {
        let plugged = cable.borrow_and_update().carrier;
        keeper.note(plugged);
        let turn = async {
            if let Err(error) = keeper.turn(plugged).await {
                tracing::warn!("{error}");
                tokio::time::sleep(AGAIN).await;
            }
        };
        let changed = tokio::select! {
            () = turn => false,
            changed = cable.changed() => match changed {
                Ok(()) => true,
                // The owner is gone, and this task with it.
                Err(_) => return,
            },
        };
        if changed {
            tracing::warn!(
                "{}: cable {}",
                keeper.link.name,
                if cable.borrow().carrier { "in" } else { "out" }
            );
            (keeper.moved, keeper.silent) = (true, false);
        }
    }
}

impl Keeper {
    /// Takes over what an earlier supervisor held: without a moment in which the link has no address.
    async fn resume(&mut self) -> Result<()> {
        match &self.held {
            Some(held) => address::apply(&self.shared.handle, &self.link, &held.lease).await,
            None => address::remove(&self.shared.handle, &self.link, None).await,
        }
    }

    /// One step; the status is noted anew after it.
    async fn turn(&mut self, plugged: bool) -> Result<()> {
        let next = match (&self.held, plugged) {
            (None, false) => std::future::pending().await,
            (None, true) => {
                self.hostname = self.shared.board.status().hostname;
                Next::Asked(dhcp::ask(&self.link, &self.hostname).await?)
            }
            (Some(held), _) => {
                let left = held.left();
                match tokio::time::timeout(left, self.renewal(held, plugged)).await {
                    Ok(next) => next?,
                    Err(_) => Next::Ended,
                }
            }
        };
        match next {
            Next::Confirmed(Answer::Given(held)) | Next::Asked(Answer::Given(held)) => self.hold(held).await,
            Next::Ended => self.lose("its lease ended").await,
            Next::Confirmed(Answer::Refused) => self.lose("the network's dhcp server refuses it").await,
            Next::Confirmed(Answer::Silent) | Next::Asked(_) => {
                self.silent = true;
                Ok(())
            }
        }
    }

    /// Waits until the lease has to be asked for again, and asks.
    async fn renewal(&self, held: &Held, plugged: bool) -> Result<Next> {
        if !plugged {
            return std::future::pending().await;
        }
        if !self.moved {
            let rest = if self.silent { pause(held) } else { held.rests() };
            // A first address does not wait for the name, which lies on a disk; the server learns it a moment later.
            let renamed = self.shared.board.until(|status| status.hostname != self.hostname);
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = renamed, if !self.silent => {}
            }
        }
        let hostname = self.shared.board.status().hostname;
        let answer = dhcp::confirm(&self.link, &hostname, held.lease.address).await?;
        match answer {
            // Servers that do not know an address may keep silent about it; they do answer one who has none.
            Answer::Silent if self.moved => Ok(Next::Asked(dhcp::ask(&self.link, &hostname).await?)),
            answer => Ok(Next::Confirmed(answer)),
        }
    }

    /// The link has what it was given.
    async fn hold(&mut self, held: Held) -> Result<()> {
        if self.moved || self.held.as_ref().is_none_or(|before| before.lease != held.lease) {
            tracing::info!("{} has {}/{}", self.link.name, held.lease.address, held.lease.prefix);
            address::apply(&self.shared.handle, &self.link, &held.lease).await?;
        }
        held.save(Path::new(RUN), self.link.mac)?;
        self.hostname = self.shared.board.status().hostname;
        (self.held, self.moved, self.silent) = (Some(held), false, false);
        Ok(())
    }

    /// The address belongs to somebody else now.
    async fn lose(&mut self, why: &str) -> Result<()> {
        // First: whoever interrupts this finds a lease that is still to be lost.
        address::remove(&self.shared.handle, &self.link, None).await?;
        lease::forget(Path::new(RUN), self.link.mac);
        if let Some(held) = self.held.take() {
            tracing::warn!("{} lost {}: {why}", self.link.name, held.lease.address);
        }
        Ok(())
    }

    fn note(&self, plugged: bool) {
        let held = self.held.as_ref().map(|held| held.lease.clone());
        let progress = match (held, plugged) {
            (held, false) => Progress::Unplugged(held.map(|lease| lease.address)),
            (None, true) => Progress::Asking { silent: self.silent },
            (Some(lease), true) => Progress::Bound { lease, silent: self.silent },
        };
        self.shared.note(&self.link.name, Some(progress));
    }
}

/// How long a server that did not answer is left alone: the nearer the end, the shorter.
fn pause(held: &Held) -> Duration {
    (held.left() / 8).clamp(AGAIN, PAUSE)
}
