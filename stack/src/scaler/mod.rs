//! How many instances a function's load asks for, and whether anybody calls it at all.
//!
//! One task looks, at a pace of its own: every second at the loads, and every so often whether somebody is idle. What
//! follows from a look is decided by functions without a clock ([`load`], [`regulator`], [`ceiling`]); the functions' actors
//! do it, as they do what somebody asks for. docs/scaling.md tells all of it to people.

mod ceiling;
mod load;
mod regulator;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::Idler;
use tokio::time::{MissedTickBehavior, interval};

use crate::desired::{Document, Load, Measure, Scale, on_disk};
use crate::key::Key;
use crate::reconcile::{Function, Functions, Usage, World};
use ceiling::Room;
use load::{Figures, Meter};
use regulator::{Regulator, Seen};

/// Pause between two looks at the loads.
const LOOK: Duration = Duration::from_secs(1);

/// Shortest pause between two looks for who is idle: less is a look without end.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// Looks for ever.
pub async fn run(world: Arc<World>, functions: Arc<Functions>, settings: Idler) {
    let pace = |pause| {
        let mut pace = interval(pause);
        // Looks that were missed are not made up for.
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pace
    };
    let (mut loads, mut idlers) = (pace(LOOK), pace(settings.interval.max(LEAST_PAUSE)));
    let mut scaler = Scaler::default();
    loop {
        tokio::select! {
            _ = loads.tick() => scaler.look(&world, &functions).await,
            _ = idlers.tick() => rest_idlers(&functions, settings.inactivity),
        }
    }
}

/// Whoever asked for it and was not called for long enough rests.
fn rest_idlers(functions: &Functions, inactivity: Duration) {
    for function in functions.all() {
        let Some(document) = function.document().filter(|document| document.wants_instance()) else {
            continue;
        };
        let Some(zero) = Scale::of(&document.labels).zero else { continue };
        let after = zero.after.unwrap_or(inactivity);
        if function.idle().is_some_and(|idle| idle >= after) {
            function.rest_after(after);
        }
    }
}

/// What is known of the functions that their load scales.
#[derive(Default)]
struct Scaler {
    known: HashMap<Key, Known>,
    /// The versions whose kind of load was told to be none of ours.
    told: HashMap<Key, u64>,
}

#[derive(Default)]
struct Known {
    meter: Meter,
    regulator: Regulator,
    /// Whether it was told that there is no memory for what its load asks for.
    cramped: bool,
}

/// A function that its load scales.
struct Scaled {
    function: Arc<Function>,
    document: Arc<Document>,
    scale: Scale,
    load: Load,
}

impl Scaler {
    async fn look(&mut self, world: &Arc<World>, functions: &Functions) {
        let all = functions.all();
        self.tell_foreign(&all);
        let scaled: Vec<_> = all.iter().filter_map(scaled).collect();
        self.known.retain(|key, _| scaled.iter().any(|scaled| scaled.function.key == *key));
        let keys = |scaled: &[Scaled], wanted: &dyn Fn(&Scaled) -> bool| -> HashSet<Key> {
            scaled.iter().filter(|s| wanted(s)).map(|s| s.function.key.clone()).collect()
        };
        let used = usage(world, keys(&scaled, &|s| s.load.measure == Measure::Cpu)).await;
        let now = Instant::now();
        let mut growing = Vec::new();
        for scaled in scaled {
            let known = self.known.entry(scaled.function.key.clone()).or_default();
            let wanted = known.wanted(&scaled, &used, now);
            let before = scaled.document.replicas;
            if wanted > before {
                growing.push((scaled, wanted));
            } else {
                known.cramped = false;
                if wanted < before {
                    scaled.function.fit(before, wanted);
                }
            }
        }
        if growing.is_empty() {
            return;
        }
        let world_of = world.clone();
        let free = on_disk(move || world_of.room()).await;
        // All of them, for those that were begun and do not answer yet have not taken their memory.
        let used = usage(world, all.iter().map(|function| function.key.clone()).collect()).await;
        let mut room = Room::new(free, coming(&all, &used));
        for (scaled, wanted) in growing {
            let before = scaled.document.replicas;
            let each = ceiling::of_one(&used, &scaled.document);
            let granted = before + room.grant(wanted - before, each);
            if let Some(known) = self.known.get_mut(&scaled.function.key) {
                known.tell_cramped(&scaled, granted, wanted, each);
            }
            if granted > before {
                scaled.function.fit(before, granted);
            }
        }
    }

    /// That a kind of load is not known here is told once for each version: it was deployed for somewhere else, and works.
    fn tell_foreign(&mut self, all: &[Arc<Function>]) {
        self.told.retain(|key, _| all.iter().any(|function| function.key == *key));
        for function in all {
            let Some(document) = function.document() else { continue };
            if let Some(kind) = Scale::foreign(&document.labels)
                && self.told.insert(function.key.clone(), document.revision) != Some(document.revision)
            {
                tracing::warn!(
                    "{}: com.openfaas.scale.type {kind:?} is not measured here (rps, capacity and cpu are): its load does \
                     not scale it",
                    function.key
                );
            }
        }
    }
}

impl Known {
    fn wanted(&mut self, scaled: &Scaled, used: &[Usage], now: Instant) -> u64 {
        let (function, document) = (&scaled.function, &scaled.document);
        let figures = Figures {
            calls: function.calls.load(std::sync::atomic::Ordering::Relaxed),
            running: function.counts.running(),
            used: used.iter().filter(|usage| usage.key == function.key).cloned().collect(),
        };
        let Some(load) = self.meter.read(now, scaled.load.measure, figures) else { return document.replicas };
        let seen = Seen {
            replicas: document.replicas,
            ready: function.available() as u64,
            by_hand: document.by_hand,
            load,
        };
        let wanted = self.regulator.wanted(now, scaled.scale, scaled.load, seen);
        function.counts.wish(self.regulator.wish());
        wanted
    }

    fn tell_cramped(&mut self, scaled: &Scaled, granted: u64, wanted: u64, each: u64) {
        let cramped = granted < wanted;
        if cramped && !self.cramped {
            tracing::warn!(
                "{}: its load asks for {wanted} instances, and there is memory for {granted} (one takes {} MiB)",
                scaled.function.key,
                each.div_ceil(1 << 20)
            );
        }
        self.cramped = cramped;
    }
}

fn scaled(function: &Arc<Function>) -> Option<Scaled> {
    let document = function.document()?;
    let scale = Scale::of(&document.labels);
    Some(Scaled { function: function.clone(), document, scale, load: scale.load? })
}

/// What instances use, as the kernel tells; nobody waits for that on a thread of calls.
async fn usage(world: &Arc<World>, keys: HashSet<Key>) -> Vec<Usage> {
    if keys.is_empty() {
        return Vec::new();
    }
    let world = world.clone();
    on_disk(move || world.usage_of(|key| keys.contains(key))).await
}

/// Memory that instances will take which should run and do not answer yet.
fn coming(all: &[Arc<Function>], used: &[Usage]) -> u64 {
    let of = |function: &Arc<Function>| {
        let document = function.document()?;
        let missing = document.replicas.saturating_sub(function.available() as u64);
        Some(missing.saturating_mul(ceiling::of_one(used, &document)))
    };
    all.iter().filter_map(of).fold(0, u64::saturating_add)
}
