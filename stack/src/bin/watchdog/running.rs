//! How many calls run.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// Calls that run, in all or on one connection.
#[derive(Default)]
pub struct Running {
    count: Cell<usize>,
    fewer: Notify,
}

impl Running {
    /// How many.
    pub fn count(&self) -> usize {
        self.count.get()
    }

    /// Waits until there are none.
    pub async fn none(&self) {
        while self.count() > 0 {
            // It is the only thread: nothing ends between the look and the wait.
            self.fewer.notified().await;
        }
    }
}

/// One call that runs: counted out when the last who holds this drops it.
pub struct Place([Rc<Running>; 2]);

impl Place {
    /// Counts it in: in all, and on its connection.
    pub fn take(all: &Rc<Running>, connection: &Rc<Running>) -> Rc<Self> {
        let both = [all.clone(), connection.clone()];
        for running in &both {
            running.count.set(running.count() + 1);
        }
        Rc::new(Self(both))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for running in &self.0 {
            running.count.set(running.count() - 1);
            running.fewer.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn counts() {
        let (all, one, other) = (Rc::default(), Rc::default(), Rc::default());
        let first = Place::take(&all, &one);
        let second = Place::take(&all, &other);
        assert_eq!((all.count(), one.count(), other.count()), (2, 1, 1));
        let held = first.clone();
        drop(first);
        assert_eq!((all.count(), one.count()), (2, 1));
        drop(held);
        one.none().await;
        tokio::join!(all.none(), async { drop(second) });
        assert_eq!((all.count(), other.count()), (0, 0));
    }
}
