//! A stream that tells of its progress towards a client who takes long: what waits to be written then is no quiet.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clock::Clock;

/// Writes that are larger carry something. What HTTP/2 writes to keep a connection alive is smaller (a frame of 17 bytes, 39
/// in TLS), and is no news of an answer.
const SMALL: usize = 64;

/// A stream, and the clock of its connection.
pub struct Moving<S> {
    stream: S,
    clock: Clock,
    /// The last write had to wait.
    writing: bool,
    /// The last flush had to wait: TLS takes more than it has sent.
    flushing: bool,
}

impl<S> Moving<S> {
    /// Nothing waits yet.
    pub fn new(stream: S, clock: Clock) -> Self {
        Self { stream, clock, writing: false, flushing: false }
    }

    /// Takes note of a write that had to wait, or carried something.
    fn wrote(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let large = matches!(&polled, Poll::Ready(Ok(written)) if *written > SMALL);
        if polled.is_ready() && (self.writing || large) {
            self.clock.moved();
        }
        self.writing = polled.is_pending();
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Moving<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Moving<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if self.flushing && polled.is_ready() {
            self.clock.moved();
        }
        self.flushing = polled.is_pending();
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::{sleep, timeout};

    use super::super::clock::Ring;
    use super::*;

    #[tokio::test]
    async fn who_reads_slowly_is_not_quiet_and_who_does_not_read_is() {
        let patience = Duration::from_millis(400);
        let (near, mut far) = duplex(1);
        let clock = Clock::default();
        let mut watch = clock.watch(Some(patience));
        let mut stream = Moving::new(near, clock);
        let mut sending = tokio::spawn(async move {
            stream.write_all(&[7; 32]).await.unwrap();
            stream
        });
        // Three times as long as a quiet connection is kept.
        for _ in 0..16 {
            far.read_u8().await.unwrap();
            let slow = sleep(patience / 5);
            tokio::select! {
                () = slow => {}
                ring = watch.ring() => panic!("{ring:?} while the client reads"),
            }
        }
        assert_eq!(timeout(patience * 25, watch.ring()).await.unwrap(), Ring::Quiet);
        assert!(timeout(Duration::ZERO, &mut sending).await.is_err());
        // Small writes, for which nobody has to wait, tell nothing.
        let mut rest = [0; 16];
        far.read_exact(&mut rest).await.unwrap();
        let mut stream = sending.await.unwrap();
        watch.wait(patience);
        let mut writes = 0;
        let ring = loop {
            tokio::select! {
                ring = watch.ring() => break ring,
                () = sleep(patience / 5) => {
                    stream.write_u8(7).await.unwrap();
                    far.read_u8().await.unwrap();
                    writes += 1;
                    assert!(writes < 100, "quiet all the same");
                }
            }
        };
        assert_eq!(ring, Ring::Quiet);
    }
}
