//! Mode streaming: the program is started for each call, and its pipes are the bodies.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::{Method, Request, Response};
use tokio::time::Instant;

use crate::body::{Body, Problem};
use crate::config::Config;
use crate::environment;
use crate::output::say;
use crate::program::{Cut, Errors, Running, bad_path, not_started, written};
use crate::reaper::Reaper;

/// Bytes of output that are read at once.
const CHUNK: usize = 16 << 10;

/// Runs the program for one call. The answer begins with the first output; a program that fails before it has written
/// anything gives 500.
pub async fn answer(
    config: &Config,
    reaper: &Rc<Reaper>,
    request: Request<Body>,
    deadline: Option<Instant>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Some(variables) = environment::of(&parts) else {
        return bad_path();
    };
    let running = match Running::start(config, reaper, variables, body, Errors::Logged) {
        Ok(running) => running,
        Err(error) => return not_started(config, &error),
    };
    let mut rest = Rest { running, buffer: BytesMut::new(), deadline };
    let mut first = rest.read().await;
    if parts.method == Method::HEAD {
        // Nobody will read its output: it runs to its end all the same.
        while first.as_ref().is_ok_and(|output| !output.is_empty()) {
            first = rest.read().await;
        }
    }
    let first = match first {
        Ok(first) => first,
        Err(cut) => return cut.answer(config),
    };
    // After its end there is nothing more to be read.
    let rest = (!first.is_empty()).then_some((Some(first), rest));
    let frames = stream::unfold(rest, |rest: Option<(Option<Bytes>, Rest)>| async move {
        let (first, mut rest) = rest?;
        let read = match first {
            Some(first) => Ok(first),
            None => rest.read().await,
        };
        match read {
            Ok(bytes) if bytes.is_empty() => None,
            Ok(bytes) => Some((Ok(Frame::data(bytes)), Some((None, rest)))),
            Err(cut) => Some((rest.broken(cut)?, None)),
        }
    });
    written(config, Box::pin(StreamBody::new(frames)))
}

/// What is still to come of a program's output.
struct Rest {
    running: Running,
    buffer: BytesMut,
    deadline: Option<Instant>,
}

impl Rest {
    /// The next output; nothing at its end.
    async fn read(&mut self) -> Result<Bytes, Cut> {
        // The place of what was sent already is used again.
        self.buffer.reserve(CHUNK);
        self.running.read(&mut self.buffer, self.deadline).await?;
        Ok(self.buffer.split().freeze())
    }

    /// The answer's end when it does not end well. A program that fails after it has written has answered; who is cut
    /// off has not.
    fn broken(self, cut: Cut) -> Option<Result<Frame<Bytes>, Problem>> {
        match cut {
            Cut::Failed(reason) => {
                say(format_args!("the function's program ended with {reason}"));
                None
            }
            cut => {
                say(&cut);
                Some(Err(cut.to_string().into()))
            }
        }
    }
}
