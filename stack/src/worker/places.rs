//! How many calls of a queue run at a time, and whose turn it is. A function takes a further place only while a third of what
//! it has stays free: one that is slow never has them all, and another one finds some whenever it comes.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::key::Key;

/// The places of a queue.
pub struct Places(Mutex<State>);

struct State {
    free: u32,
    total: u32,
    lanes: HashMap<Key, Lane>,
    /// Counts the turns.
    turn: u64,
}

struct Lane {
    /// Calls that run.
    running: u32,
    /// The most that may, for the function's own sake.
    limit: u32,
    /// Set while it waits for its turn: since when, by the number of that turn, and whom to wake.
    waiting: Option<(u64, Waker)>,
}

/// A function's share of the places.
pub struct Share {
    places: Arc<Places>,
    key: Key,
}

/// A place; given back when it is dropped.
pub struct Taken {
    places: Arc<Places>,
    key: Key,
}

impl Places {
    /// So many, all free.
    pub fn new(total: u32) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { free: total, total, turn: 0, lanes: HashMap::new() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A function comes, or comes back: what is known of its limit stays.
    pub fn share(self: &Arc<Self>, key: &Key) -> Share {
        let mut state = self.state();
        let limit = state.total;
        state.lanes.entry(key.clone()).or_insert(Lane { running: 0, limit, waiting: None });
        Share { places: self.clone(), key: key.clone() }
    }
}

impl State {
    /// Whose turn it is: of those that wait and may, the one with the fewest calls, and of those the one that has waited
    /// longest.
    fn next(&self) -> Option<&Key> {
        let may = |lane: &Lane| {
            self.free > 0 && lane.running < lane.limit && lane.running < self.free.saturating_mul(3)
        };
        let waiting = self.lanes.iter().filter_map(|(key, lane)| {
            let (since, _) = lane.waiting.as_ref().filter(|_| may(lane))?;
            Some((lane.running, *since, key))
        });
        waiting.min().map(|(.., key)| key)
    }

    /// Wakes whose turn it is.
    fn wake(&self) {
        if let Some(lane) = self.next().and_then(|key| self.lanes.get(key))
            && let Some((_, waker)) = &lane.waiting
        {
            waker.wake_by_ref();
        }
    }
}

impl Share {
    /// Waits for a place.
    pub fn enter(&self) -> impl Future<Output = Taken> + '_ {
        // Whoever stops waiting must not be waited for.
        struct Leave<'a>(&'a Share);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                let mut state = self.0.places.state();
                if let Some(lane) = state.lanes.get_mut(&self.0.key)
                    && lane.waiting.take().is_some()
                {
                    state.wake();
                }
            }
        }
        let leave = Leave(self);
        poll_fn(move |cx| {
            // All of it, or it would not be here until the end.
            let Leave(share) = &leave;
            share.poll(cx)
        })
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Taken> {
        let mut state = self.places.state();
        state.turn += 1;
        let turn = state.turn;
        if let Some(lane) = state.lanes.get_mut(&self.key) {
            let since = lane.waiting.as_ref().map_or(turn, |(since, _)| *since);
            lane.waiting = Some((since, cx.waker().clone()));
        }
        if state.next() != Some(&self.key) {
            state.wake();
            return Poll::Pending;
        }
        state.free -= 1;
        if let Some(lane) = state.lanes.get_mut(&self.key) {
            lane.running += 1;
            lane.waiting = None;
        }
        state.wake();
        Poll::Ready(Taken { places: self.places.clone(), key: self.key.clone() })
    }

    /// The most that it may have now if nobody else came.
    pub fn most(&self) -> u32 {
        let state = self.places.state();
        let limit = state.lanes.get(&self.key).map_or(0, |lane| lane.limit);
        limit.min(state.total - state.total / 4).max(1)
    }

    /// How many it has.
    pub fn running(&self) -> u32 {
        self.places.state().lanes.get(&self.key).map_or(0, |lane| lane.running)
    }

    /// The function says that it has too many: half of what runs is enough, until it does well.
    pub fn slow_down(&self) {
        if let Some(lane) = self.places.state().lanes.get_mut(&self.key) {
            lane.limit = (lane.running.min(lane.limit) / 2).max(1);
        }
    }

    /// The function did well: one more than run now.
    pub fn speed_up(&self) {
        let mut state = self.places.state();
        let total = state.total;
        if let Some(lane) = state.lanes.get_mut(&self.key)
            && lane.limit < total
            && lane.running >= lane.limit
        {
            lane.limit += 1;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // A limit of its own is kept for when it comes back.
        let mut state = self.places.state();
        let total = state.total;
        if state.lanes.get(&self.key).is_some_and(|lane| lane.running == 0 && lane.limit == total) {
            state.lanes.remove(&self.key);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = self.places.state();
        state.free += 1;
        if let Some(lane) = state.lanes.get_mut(&self.key) {
            lane.running -= 1;
        }
        state.wake();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn key(name: &str) -> Key {
        Key::new(name, "").unwrap()
    }

    fn take(share: &Share) -> Option<Taken> {
        share.enter().now_or_never()
    }

    #[test]
    fn one_alone_leaves_a_quarter() {
        let places = Places::new(64);
        let (slow, fast) = (places.share(&key("f1")), places.share(&key("f2")));
        let taken: Vec<_> = std::iter::from_fn(|| take(&slow)).collect();
        assert_eq!((taken.len(), slow.most()), (48, 48));
        // Whoever comes next finds some, and so does the one after that.
        let more: Vec<_> = std::iter::from_fn(|| take(&fast)).collect();
        assert_eq!(more.len(), 12);
        let third = places.share(&key("f3"));
        assert!(take(&third).is_some());
    }

    #[test]
    fn few_places_are_all_used() {
        for (total, wanted) in [(1, 1), (2, 2), (3, 3), (4, 3), (8, 6)] {
            let places = Places::new(total);
            let share = places.share(&key("f4"));
            assert_eq!(std::iter::from_fn(|| take(&share)).collect::<Vec<_>>().len(), wanted, "{total}");
        }
    }

    #[tokio::test]
    async fn the_one_with_the_fewest_has_the_next_turn() {
        let places = Places::new(2);
        let (slow, fast) = (places.share(&key("f5")), places.share(&key("f6")));
        let (first, second) = (take(&slow).unwrap(), take(&slow).unwrap());
        let (mut again, mut turn) = (Box::pin(slow.enter()), Box::pin(fast.enter()));
        assert!(again.as_mut().now_or_never().is_none() && turn.as_mut().now_or_never().is_none());
        drop(first);
        assert!(again.as_mut().now_or_never().is_none());
        let taken = turn.await;
        drop((taken, second));
        again.await;
    }

    #[tokio::test]
    async fn who_stops_waiting_is_not_waited_for() {
        let places = Places::new(1);
        let (one, two, three) =
            (places.share(&key("f7")), places.share(&key("f8")), places.share(&key("f9")));
        let taken = take(&one).unwrap();
        let mut leaves = Box::pin(two.enter());
        assert!(leaves.as_mut().now_or_never().is_none());
        let waits = async { three.enter().await };
        let (_, _third) = tokio::join!(
            async {
                tokio::task::yield_now().await;
                drop(leaves);
                drop(taken);
            },
            waits
        );
    }

    #[test]
    fn a_function_that_has_too_many_gets_fewer_and_comes_back() {
        let places = Places::new(16);
        let share = places.share(&key("f10"));
        let mut taken: Vec<_> = std::iter::from_fn(|| take(&share)).collect();
        assert_eq!(taken.len(), 12);
        share.slow_down();
        assert_eq!(share.most(), 6);
        taken.truncate(5);
        taken.extend(take(&share));
        assert!(take(&share).is_none());
        share.speed_up();
        assert!(take(&share).is_some());
        share.speed_up();
        assert_eq!(share.most(), 7, "it has one free");
        for _ in 0..10 {
            share.slow_down();
        }
        assert_eq!(share.most(), 1);
    }
}
