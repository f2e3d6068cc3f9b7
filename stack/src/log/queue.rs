//! What waits for journald: bounded, in order, and with a count of what did not fit.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

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
    entries: VecDeque<Vec<u8>>,
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
            inner.entries.push_back(entry);
        }
        drop(inner);
        self.filled.notify_one();
    }

    /// Waits for the next entry. When all that waited is gone, the losses are told.
    pub async fn next(&self) -> Vec<u8> {
        loop {
            if let Some(entry) = self.take() {
                return entry;
            }
            self.emptied.notify_waiters();
            self.filled.notified().await;
        }
    }

    fn take(&self) -> Option<Vec<u8>> {
        let inner = &mut *self.inner.borrow_mut();
        if inner.entries.is_empty() {
            let told: Vec<_> = inner.lost.drain().map(|(_, (source, lines))| source.loss(lines)).collect();
            inner.bytes += told.iter().map(Vec::len).sum::<usize>();
            inner.entries.extend(told);
        }
        let entry = inner.entries.pop_front()?;
        inner.bytes -= entry.len();
        Some(entry)
    }

    /// Waits until nothing waits.
    pub async fn drained(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.inner.borrow().entries.is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn losses_are_counted_and_told_in_their_place() {
        let queue = Queue::default();
        let (a, b) = (Source::parse("n.a.0.out").unwrap(), Source::parse("n.b.0.out").unwrap());
        let line = vec![b'x'; ROOM / 2];
        for _ in 0..5 {
            queue.push(&a, line.clone());
        }
        queue.push(&b, b"small".to_vec());
        assert_eq!(queue.next().await.len(), ROOM / 2);
        // There is room again, but this would come before the news of the loss.
        queue.push(&a, b"later".to_vec());
        assert_eq!(queue.next().await.len(), ROOM / 2);
        let mut told: Vec<String> = Vec::new();
        for _ in 0..2 {
            told.push(String::from_utf8_lossy(&queue.next().await).into_owned());
        }
        told.sort_by_key(|text| text.contains("BOTHY_FUNCTION=b"));
        assert!(told[0].contains("4 lines of this function's output were dropped"), "{told:?}");
        assert!(told[1].contains("1 lines"), "{told:?}");
        queue.push(&a, b"again".to_vec());
        assert_eq!(queue.next().await, b"again");
    }
}
