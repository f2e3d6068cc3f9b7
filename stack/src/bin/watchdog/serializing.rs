//! Modes serializing and classic: the program is started for each call when the whole body is there, and its output is
//! the answer when it has ended.

use std::rc::Rc;

use hyper::{Request, Response};
use tokio::time::Instant;

use crate::body::{Body, Collected, full};
use crate::config::Config;
use crate::environment::{self, Variable};
use crate::program::{Cut, Errors, Running, bad_path, not_started, until, written};
use crate::reaper::Reaper;

/// Bytes of output that there is room for at least when it is read.
const CHUNK: usize = 8 << 10;

/// Runs the program for one call of mode serializing.
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
    let body = match collect(body, deadline).await {
        Ok(body) => body,
        Err(cut) => return cut.answer(config),
    };
    let ended = match run(config, reaper, variables, body, Errors::Logged, deadline).await {
        Ok(ended) => ended,
        Err(error) => return not_started(config, &error),
    };
    if let Some(cut) = ended.cut {
        return cut.answer(config);
    }
    written(config, full(ended.output))
}

/// A program that has ended.
pub struct Ended {
    /// What it wrote.
    pub output: Vec<u8>,
    /// How it failed, if it did.
    pub cut: Option<Cut>,
}

/// The whole body of a request, within the call's time.
pub async fn collect(body: Body, deadline: Option<Instant>) -> Result<Body, Cut> {
    tokio::select! {
        biased;
        collected = Collected::read(body) => {
            collected.map(|body| Box::pin(body) as Body).map_err(Cut::Request)
        }
        () = until(deadline) => Err(Cut::Late),
    }
}

/// Runs the program to its end.
pub async fn run(
    config: &Config,
    reaper: &Rc<Reaper>,
    variables: Vec<Variable>,
    body: Body,
    errors: Errors,
    deadline: Option<Instant>,
) -> std::io::Result<Ended> {
    let mut running = Running::start(config, reaper, variables, body, errors)?;
    let mut output = Vec::new();
    let cut = loop {
        output.reserve(CHUNK);
        match running.read(&mut output, deadline).await {
            Ok(0) => break None,
            Ok(_) => {}
            Err(cut) => break Some(cut),
        }
    };
    Ok(Ended { output, cut })
}
