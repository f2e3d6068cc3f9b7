//! The ways into a function: one for each instance that is ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::endpoint::{Endpoint, Running};

/// Instances that answer.
#[derive(Debug, Default)]
pub struct Pool {
    endpoints: Vec<Arc<Endpoint>>,
    /// Where the next look begins, so that equals take turns.
    turn: AtomicUsize,
}

impl Pool {
    /// Puts it together.
    pub fn new(endpoints: Vec<Arc<Endpoint>>) -> Self {
        Self { endpoints, turn: AtomicUsize::new(0) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Whether one is in it.
    pub fn has(&self, endpoint: &Arc<Endpoint>) -> bool {
        self.endpoints.iter().any(|e| Arc::ptr_eq(e, endpoint))
    }

    /// All of them.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Counts a call in where the fewest are.
    pub fn enter(&self) -> Option<Running> {
        let (head, tail) = self.endpoints.split_at_checked(match self.endpoints.len() {
            0 | 1 => 0,
            many => self.turn.fetch_add(1, Ordering::Relaxed) % many,
        })?;
        tail.iter().chain(head).min_by_key(|endpoint| endpoint.calls()).map(Endpoint::enter)
    }

    /// The pool with one that may be in it.
    pub fn with(&self, endpoint: Arc<Endpoint>) -> Self {
        let others = self.endpoints.iter().filter(|e| !Arc::ptr_eq(e, &endpoint)).cloned();
        Self::new(others.chain([endpoint.clone()]).collect())
    }

    /// The pool without one; nothing when it is not in it.
    pub fn without(&self, endpoint: &Arc<Endpoint>) -> Option<Self> {
        let others: Vec<_> = self.endpoints.iter().filter(|e| !Arc::ptr_eq(e, endpoint)).cloned().collect();
        (others.len() < self.endpoints.len()).then(|| Self::new(others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(last: u8) -> Arc<Endpoint> {
        Arc::new(Endpoint::new(([10, 62, 0, last], 8080).into()))
    }

    #[test]
    fn calls_go_where_the_fewest_are_and_equals_take_turns() {
        assert!(Pool::default().enter().is_none());
        let pool = Pool::default().with(endpoint(2)).with(endpoint(3)).with(endpoint(4));
        let calls: Vec<_> = (0..300).filter_map(|_| pool.enter()).collect();
        assert!(pool.endpoints().iter().all(|endpoint| endpoint.calls() == 100));
        let second = calls.iter().position(|call| call.address() == pool.endpoints()[1].address).unwrap();
        let mut calls = calls;
        drop(calls.remove(second));
        assert_eq!(pool.enter().unwrap().address(), pool.endpoints()[1].address);
        drop(calls);
        let turns: Vec<_> = (0..3).filter_map(|_| pool.enter()).map(|call| call.address()).collect();
        assert!(turns.iter().collect::<std::collections::BTreeSet<_>>().len() == 3, "{turns:?}");
    }

    #[test]
    fn one_leaves() {
        let (one, two) = (endpoint(2), endpoint(3));
        let pool = Pool::new(vec![one.clone(), two.clone()]);
        assert!(pool.without(&endpoint(2)).is_none());
        assert_eq!(pool.with(one.clone()).len(), 2);
        let rest = pool.without(&one).unwrap();
        assert_eq!((rest.len(), rest.enter().unwrap().address()), (1, two.address));
        assert!(rest.without(&two).unwrap().is_empty());
    }
}
