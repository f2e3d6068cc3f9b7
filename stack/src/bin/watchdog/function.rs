//! The function behind the watchdog: how a call gets its answer.

use std::rc::Rc;

use hyper::{Request, Response};
use tokio::time::Instant;

use crate::body::Body;
use crate::config::Config;
use crate::files::Files;
use crate::mode::Mode;
use crate::program;
use crate::reaper::{Program, Reaper};
use crate::running::Place;
use crate::upstream::Upstream;
use crate::{classic, serializing, streaming};

/// What stands behind.
pub enum Function {
    /// A program that is started for each call.
    Started(Rc<Reaper>),
    /// A program that is a server.
    Server(Upstream),
    /// A folder.
    Files(Files),
}

impl Function {
    /// Makes ready what the mode needs. Gives the program too where it is one for all calls.
    pub fn start(config: &Config, reaper: Rc<Reaper>) -> Result<(Self, Option<Program>), String> {
        program::check(config)?;
        Ok(match &config.mode {
            Mode::Http(target) => {
                let program = program::start_server(config, &reaper)?;
                (Self::Server(Upstream::new(target.clone())), Some(program))
            }
            Mode::Static(folder) => (Self::Files(Files::open(folder)?), None),
            Mode::Streaming | Mode::Serializing | Mode::Classic(_) => (Self::Started(reaper), None),
        })
    }

    /// The answer to a call.
    pub async fn answer(
        &self,
        config: &Config,
        request: Request<Body>,
        deadline: Option<Instant>,
        place: Rc<Place>,
    ) -> Response<Body> {
        match self {
            Self::Server(upstream) => upstream.answer(request, deadline, place).await,
            Self::Files(files) => files.answer(&request).await,
            Self::Started(reaper) => match &config.mode {
                Mode::Classic(options) => classic::answer(config, options, reaper, request, deadline).await,
                Mode::Serializing => serializing::answer(config, reaper, request, deadline).await,
                _ => streaming::answer(config, reaper, request, deadline).await,
            },
        }
    }

    /// The program of mode http has ended, and has left nobody behind.
    pub fn ended(&self, nobody: bool) {
        if let Self::Server(upstream) = self {
            upstream.ended(nobody);
        }
    }

    /// Whether a call would find somebody.
    pub async fn is_there(&self) -> bool {
        match self {
            Self::Server(upstream) => upstream.listens().await,
            Self::Started(_) | Self::Files(_) => true,
        }
    }
}
