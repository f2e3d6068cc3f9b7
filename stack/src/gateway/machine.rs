//! `POST /system/machine`: a request of `bothyctl --host` for the supervisor, passed on to its control socket; the lines
//! of the answer as they come. What they mean is the business of those two alone.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;

use super::reply::{Body, BodyError, Refusal, refuse};
use super::system::read;

/// Longest request; the supervisor takes no longer ones.
const LONGEST_BYTES: usize = 64 << 10;

/// How long the supervisor may take to take a request. It reads them beside everything else that it does.
const TAKE: Duration = Duration::from_secs(10);

/// Bytes passed on at once.
const PIECE_BYTES: usize = 16 << 10;

/// Passes a request on. The answer ends with the supervisor's; the socket is closed, and with it the work for it, when
/// the client goes.
pub async fn pass_on(socket: &Path, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    // A page of somebody else's in an administrator's browser can send anything but this type without being asked first
    // (Fetch standard, "CORS-safelisted request-header"), and the browser adds the password.
    if request.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != "application/json") {
        let message = "a request for the machine is application/json";
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let mut body = read(request).await?;
    if body.remaining() > LONGEST_BYTES {
        let message = format!("a request for the machine has at most {LONGEST_BYTES} bytes");
        return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    let mut line = body.copy_to_bytes(body.remaining()).to_vec();
    // One line, however it was written: JSON has line ends only between its parts.
    line.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    line.push(b'\n');
    let ask = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(&line).await?;
        io::Result::Ok(stream)
    };
    let asked = tokio::time::timeout(TAKE, ask).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let stream = asked.map_err(|error| {
        let message = format!(
            "the supervisor cannot be asked at {}: {error}; it is started again when it has died: try again in a moment",
            socket.display()
        );
        refuse(StatusCode::SERVICE_UNAVAILABLE, message)
    })?;
    let mut response = Response::new(Lines { stream, piece: vec![0; PIECE_BYTES].into() }.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

/// The supervisor's answer as a body.
struct Lines {
    stream: UnixStream,
    piece: Box<[u8]>,
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { stream, piece } = &mut *self;
        let mut buffer = ReadBuf::new(piece);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        let bytes = Bytes::copy_from_slice(buffer.filled());
        Poll::Ready((!bytes.is_empty()).then_some(Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn lines_come_as_they_are_written_and_the_socket_goes_with_the_body() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let listener = UnixListener::bind(&path).unwrap();
        let stream = UnixStream::connect(&path).await.unwrap();
        let (mut supervisor, _) = listener.accept().await.unwrap();
        let mut body = Lines { stream, piece: vec![0; 8].into() }.boxed_unsync();
        supervisor.write_all(b"{\"a\":1}\n").await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 8 {
            seen.extend(body.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(seen, b"{\"a\":1}\n");
        drop(body);
        assert_eq!(supervisor.read(&mut [0; 8]).await.unwrap(), 0, "nobody is told that the client has gone");
    }
}
