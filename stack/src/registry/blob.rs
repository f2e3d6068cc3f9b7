//! A blob while it comes: taken up again where the connection broke.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};

use super::source::Source;
use crate::error::{Result, Trouble};

/// Tries in a row that bring next to nothing, and the pause before the second one.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);

/// A try that brought so many bytes was worth it: the next failure is the first again.
const WORTH: u64 = 256 << 10;

/// A try that brings less than [`WORTH`] in so long a time has failed: a trickle must not hold up others for ever.
const WINDOW: Duration = Duration::from_secs(300);

/// How fast a try is.
struct Pace {
    since: Instant,
    count: u64,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { since: now, count: 0 }
    }

    /// Counts bytes. Gives whether it is too slow.
    fn too_slow(&mut self, now: Instant, count: u64) -> bool {
        self.count += count;
        let over = now.duration_since(self.since) >= WINDOW;
        let slow = over && self.count < WORTH;
        if over {
            *self = Self::new(now);
        }
        slow
    }
}

/// A blob of a registry.
pub struct Blob {
    source: Arc<Source>,
    digest: String,
    size: u64,
    received: u64,
    /// Bytes that came again because the registry begins at the start, and are passed over.
    skip: u64,
    body: Option<Incoming>,
    failures: u32,
    gained: u64,
    pace: Pace,
    /// Counts what came, over all blobs of a pull.
    counter: Arc<AtomicU64>,
}

impl Blob {
    /// Prepares to ask for it.
    pub fn new(source: Arc<Source>, digest: &str, size: u64, counter: Arc<AtomicU64>) -> Self {
        let digest = digest.to_owned();
        Self {
            source,
            digest,
            size,
            received: 0,
            skip: 0,
            body: None,
            failures: 0,
            gained: 0,
            pace: Pace::new(Instant::now()),
            counter,
        }
    }

    /// The next bytes; nothing when all have come.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let act = format!("fetch the blob {}", self.digest);
        loop {
            if self.received == self.size {
                return Ok(None);
            }
            let step = match &mut self.body {
                None => self.open(&act).await.map(|()| None),
                Some(body) => match self.source.client().next(&act, body).await {
                    Ok(None) => {
                        let reason = format!("it ended after {} of {} bytes", self.received, self.size);
                        Err(self.source.client().error(&act, Trouble::Away, reason))
                    }
                    Ok(Some(bytes)) => self.take(&act, bytes),
                    Err(error) => Err(error),
                },
            };
            match step {
                Ok(None) => {}
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Err(error) => {
                    self.body = None;
                    if self.gained >= WORTH {
                        self.failures = 0;
                    }
                    self.gained = 0;
                    self.failures += 1;
                    if !error.is_away() || self.failures >= TRIES {
                        return Err(error);
                    }
                    tracing::info!("{error}; tried again from byte {}", self.received);
                    tokio::time::sleep(PAUSE * 2_u32.pow(self.failures - 1)).await;
                }
            }
        }
    }

    /// Counts what came; nothing where it had come before.
    fn take(&mut self, act: &str, mut bytes: Bytes) -> Result<Option<Bytes>> {
        if self.pace.too_slow(Instant::now(), bytes.len() as u64) {
            let reason = format!("less than {} KiB came in {} s", WORTH >> 10, WINDOW.as_secs());
            return Err(self.source.client().error(act, Trouble::Away, reason));
        }
        let again = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
        drop(bytes.split_to(again));
        self.skip -= again as u64;
        let count = bytes.len() as u64;
        if count > self.size - self.received {
            let reason = format!("more than its {} bytes came", self.size);
            return Err(self.source.client().error(act, Trouble::Wrong, reason));
        }
        self.received += count;
        self.gained += count;
        self.counter.fetch_add(count, Ordering::Relaxed);
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    /// Asks for what is missing.
    async fn open(&mut self, act: &str) -> Result<()> {
        let mut headers = HeaderMap::new();
        if self.received > 0 {
            // Digits and a hyphen are a header value.
            let range = format!("bytes={}-", self.received);
            headers.extend(range.parse::<HeaderValue>().ok().map(|range| (RANGE, range)));
        }
        let response = self.source.get(act, &format!("blobs/{}", self.digest), &headers).await?;
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let from = match response.status() {
            StatusCode::PARTIAL_CONTENT => text(CONTENT_RANGE).and_then(begin),
            _ => Some(0),
        };
        let length = text(CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        let whole = from.zip(length).is_none_or(|(from, length)| from.checked_add(length) == Some(self.size));
        let begins = from.filter(|from| *from <= self.received);
        let (Some(from), true) = (begins, whole) else {
            let reason =
                format!("what it offers is not the rest of {} bytes from byte {}", self.size, self.received);
            return Err(self.source.client().error(act, Trouble::Wrong, reason));
        };
        self.skip = self.received - from;
        self.pace = Pace::new(Instant::now());
        self.body = Some(response.into_body());
        Ok(())
    }
}

/// Where a part begins: `bytes 200-1000/67589` (RFC 9110, 14.4).
fn begin(range: &str) -> Option<u64> {
    let (unit, range) = range.split_once(' ')?;
    let (first, _) = range.split_once('-')?;
    unit.eq_ignore_ascii_case("bytes").then(|| first.trim().parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_ends() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        assert!(!pace.too_slow(began + WINDOW / 2, 1));
        assert!(pace.too_slow(began + WINDOW, 1));
        let mut pace = Pace::new(began);
        assert!(!pace.too_slow(began + WINDOW, WORTH));
        assert!(!pace.too_slow(began + WINDOW * 3 / 2, 0));
        assert!(pace.too_slow(began + WINDOW * 2, WORTH - 1));
    }

    #[test]
    fn parts() {
        for (text, first) in [
            ("bytes 200-1000/67589", Some(200)),
            ("Bytes 0-0/*", Some(0)),
            ("bytes */67589", None),
            ("bytes -1/2", None),
            ("200-1000", None),
            ("", None),
        ] {
            assert_eq!(begin(text), first, "{text}");
        }
    }
}
