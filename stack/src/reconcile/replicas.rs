//! As many instances as a document wants: those that there are, and new ones.

use std::time::Duration;

use super::actor::Actor;
use super::endpoint::Silence;
use super::fetch::Fetch;
use super::instance::Instance;
use super::knock::greet;
use super::probe::Probes;
use super::start::{Outcome, Purpose, Source, Start};
use crate::containerd::{Image, Task};
use crate::desired::Document;
use crate::error::{Error, Result};

impl Actor {
    /// Returns when to look again, if nothing happens before.
    pub(super) async fn keep_running(
        &mut self,
        document: &Document,
        instances: &[Instance],
    ) -> Option<Duration> {
        let wanted = usize::try_from(document.replicas).unwrap_or(usize::MAX);
        let found: Vec<_> = self.good(instances, Task::Alive).cloned().collect();
        for instance in found {
            // A former life's.
            self.start(document, instance.replica, Purpose::Serve, Source::Alive(instance));
        }
        self.shrink(wanted);
        let mut present = self.serving.len() + self.coming();
        if self.has_patience() {
            present += self.good(instances, Task::Unclear).count();
        }
        let mut missing = wanted.saturating_sub(present);
        if missing == 0 {
            return None;
        }
        if let Some(wait) = self.held() {
            return Some(wait);
        }
        self.function.starting();
        missing -= usize::from(self.rouse(document));
        // What was prepared in a former life.
        let prepared: Vec<_> = self.good(instances, Task::Created).take(missing).cloned().collect();
        missing -= prepared.len();
        for instance in prepared {
            self.start(document, instance.replica, Purpose::Serve, Source::Prepared(instance));
        }
        if missing == 0 {
            return None;
        }
        match self.image(document).await {
            Some(Ok(image)) => {
                for replica in self.free(instances, missing) {
                    self.start(document, replica, Purpose::Serve, Source::Image(image.clone()));
                }
                None
            }
            Some(Err(error)) if error.is_containerd_away() => {
                self.fail(&error);
                self.held()
            }
            Some(Err(error)) => {
                self.function.counts.restarted(&error);
                let delay = self.without_image(&error);
                self.hold_back(delay, &error.to_string());
                Some(delay)
            }
            // Its end is a reason to look.
            None => None,
        }
    }

    /// How many instances are on their way. What was to be prepared for a call that has come now is one of them.
    fn coming(&mut self) -> usize {
        let (digest, mut coming) = (self.digest.as_ref(), 0);
        let wanted = |start: &&mut Start| Some(&start.digest) == digest && start.is_wanted();
        for start in self.starts.values_mut().filter(wanted) {
            if matches!(start.purpose, Purpose::Rest(_)) {
                start.purpose = Purpose::Serve;
            }
            coming += usize::from(matches!(start.purpose, Purpose::Serve));
        }
        coming
    }

    /// Takes those out of service that are too many: the idlest.
    fn shrink(&mut self, wanted: usize) {
        let surplus = self.serving.len().saturating_sub(wanted);
        self.serving.sort_by_key(|serving| (serving.endpoint.calls(), serving.instance.replica));
        for serving in self.serving.drain(..surplus).collect::<Vec<_>>() {
            self.leave(&serving);
        }
    }

    /// The start of an instance is over.
    pub(super) async fn started(&mut self, replica: u32, outcome: Outcome) {
        let Some(start) = self.starts.remove(&replica) else { return };
        let wanted = start.is_wanted() && self.digest.as_ref() == Some(&start.digest);
        let document = self.document.clone().filter(|_| wanted);
        match (start.purpose, outcome, document) {
            (Purpose::Deploy, outcome, _) => self.deployed(replica, outcome).await,
            (Purpose::Rest(place), Outcome::Prepared(instance), Some(document)) if document.replicas == 0 => {
                self.rest(instance, place);
            }
            // It was prepared, and a call came.
            (_, Outcome::Prepared(instance), Some(document)) if document.replicas > 0 => {
                self.start(&document, replica, Purpose::Serve, Source::Prepared(instance));
            }
            (_, Outcome::Up(instance, endpoint), Some(document)) => {
                self.away = None;
                self.not_before = None;
                if document.replicas > 0 {
                    self.function.let_in(endpoint.clone());
                }
                // Where it is not wanted any more, the next look takes it out of service in good order.
                self.serve(instance, endpoint);
            }
            (_, Outcome::Unready(instance, endpoint, reason), Some(document)) => {
                self.function.pause(&endpoint, Silence::Unready);
                self.function.failed(&reason);
                let path = Probes::of(&document.annotations).ready.and_then(|probe| probe.path);
                tokio::spawn(greet(self.function.clone(), endpoint.clone(), path));
                self.serve(instance, endpoint);
            }
            (purpose, Outcome::Failed(error, left), document) => {
                // What is there of it all the same must not be taken for one that can be used.
                let _ = self.removals.begin(&self.world, &self.function, left.iter(), Duration::ZERO);
                match (purpose, document) {
                    // Another one is started at once.
                    (_, Some(_)) if start.was_at_hand => {
                        tracing::warn!("{}: what was at hand is of no use: {error}", self.function.key);
                    }
                    (Purpose::Rest(_), Some(_)) => self.fail_to_rest(&error),
                    (_, Some(document)) if document.replicas > 0 => {
                        self.function.counts.restarted(&error);
                        self.fail(&error);
                    }
                    _ => {}
                }
            }
            // Nobody wants it: it is removed at the next look.
            (_, Outcome::Up(instance, endpoint) | Outcome::Unready(instance, endpoint, _), None) => {
                self.function.left(&endpoint);
                let grace = self.world.grace(self.document.as_ref());
                self.removals.let_end(&instance.id, endpoint, grace);
            }
            (_, Outcome::Prepared(_), _) => {}
        }
    }

    /// The image of what should run. It is fetched beside us where it is not at hand: nothing yet, then.
    pub(super) async fn image(&mut self, document: &Document) -> Option<Result<Image>> {
        match &mut self.fetch {
            Some(fetch) if fetch.is_for(document) => {
                let outcome = fetch.outcome()?;
                self.fetch = None;
                return Some(outcome);
            }
            _ => self.fetch = None,
        }
        if let Some(image) = self.world.at_hand(document).await {
            return Some(Ok(image));
        }
        self.fetch = Some(Fetch::begin(&self.world, &self.function, document));
        None
    }

    /// How long to wait after an image could not be had.
    pub(super) fn without_image(&mut self, error: &Error) -> Duration {
        match error {
            error if error.is_lasting() => self.backoff.without_image(true),
            Error::Pull { .. } => self.backoff.without_image(false),
            _ => self.backoff.failed(),
        }
    }
}
