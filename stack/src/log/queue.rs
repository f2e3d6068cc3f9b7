//! What waits for journald: bounded, in order, and with a count of what did not fit.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use tokio::sync::Notify;

use super::entry::Source;

/// Most bytes that wait. Beyond them entries are dropped: a function must not stand still because its log does.
const ROOM: usize = 4 << 20;

/// The queue between readers and writer, for one thread.
#[derive(Default)]
pub struct Queue {
    inner: RefCell<Inner>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Default)]
struct Inner {
    entries: VecDeque<Rc<[u8]>>,
    bytes: usize,
    lost: HashMap<String, (Source, u64)>,
}

impl Queue {
    /// Adds an entry, or counts it as lost. Once something was lost of a function, its order is kept by losing on
    /// until the loss has been told.
    pub fn push(&self, source: &Source, entry: Vec<u8>) {
        let mut inner = self.inner.borrow_mut();
        let known = inner.lost.contains_key(&source.identifier);
        if known || inner.bytes + entry.len() > ROOM {
            let lost = inner.lost.entry(source.identifier.clone()).or_insert_with(|| (source.clone(), 0));
            lost.1 += 1;
        } else {
            inner.bytes += entry.len();
            inner.entries.push_back(entry.into());
        }
        drop(inner);
        self.filled.notify_one();
    }

    /// Waits for the next entry, which stays in the queue until [`Queue::written`]. When all that waited is gone, the
    /// losses are told.
    pub async fn next(&self) -> Rc<[u8]> {
        loop {
            if let Some(entry) = self.first() {
                return entry;
            }
            self.filled.notified().await;
        }
    }

    fn first(&self) -> Option<Rc<[u8]>> {
        let inner = &mut *self.inner.borrow_mut();
        if inner.entries.is_empty() {
            let told = inner.lost.drain().map(|(_, (source, lines))| Rc::from(source.loss(lines)));
            inner.entries.extend(told);
            inner.bytes = inner.entries.iter().map(|entry| entry.len()).sum();
        }
        inner.entries.front().cloned()
    }

    /// The entry that `next` gave is out of the house.
    pub fn written(&self) {
        let mut inner = self.inner.borrow_mut();
        if let Some(entry) = inner.entries.pop_front() {
            inner.bytes -= entry.len();
        }
        drop(inner);
        if self.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Waits until nothing waits, losses that were not told included.
    pub async fn drained(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    fn is_empty(&self) -> bool {
        let inner = self.inner.borrow();
        inner.entries.is_empty() && inner.lost.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn take(queue: &Queue) -> Vec<u8> {
        let entry = queue.next().await.to_vec();
        queue.written();
        entry
    }

    #[tokio::test]
    async fn what_is_not_written_yet_is_not_gone() {
        let queue = Queue::default();
        queue.push(&Source::parse("n.a.0.out").unwrap(), b"x".to_vec());
        assert_eq!(*queue.next().await, *b"x");
        let early = tokio::time::timeout(std::time::Duration::from_millis(10), queue.drained()).await;
        assert!(early.is_err(), "the writer still has it");
        queue.written();
        queue.drained().await;
    }

    #[tokio::test]
    async fn losses_are_counted_and_told_in_their_place() {
        let queue = Queue::default();
        let (a, b) = (Source::parse("n.a.0.out").unwrap(), Source::parse("n.b.0.out").unwrap());
        let line = vec![b'x'; ROOM / 2];
        for _ in 0..5 {
            queue.push(&a, line.clone());
        }
        queue.push(&b, b"small".to_vec());
        assert_eq!(take(&queue).await.len(), ROOM / 2);
        // There is room again, but this would come before the news of the loss.
        queue.push(&a, b"later".to_vec());
        assert_eq!(take(&queue).await.len(), ROOM / 2);
        let mut told: Vec<String> = Vec::new();
        for _ in 0..2 {
            told.push(String::from_utf8_lossy(&take(&queue).await).into_owned());
        }
        told.sort_by_key(|text| text.contains("BOTHY_FUNCTION=b"));
        assert!(told[0].contains("4 lines of this function's output were dropped"), "{told:?}");
        assert!(told[1].contains("1 lines"), "{told:?}");
        queue.push(&a, b"again".to_vec());
        assert_eq!(take(&queue).await, b"again");
    }
}
