//! Connections that wait for the next call.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use tokio::time::{Instant, sleep_until};

use crate::body::Body;
use crate::task;

/// Most connections that are kept.
const MOST: usize = 64;

/// How long they are kept. Not for long: a server with one thread waits on a connection that is kept, and takes no
/// other one meanwhile.
const KEPT: Duration = Duration::from_millis(500);

/// The connections, the one that was used last at the end.
#[derive(Default)]
pub struct Pool {
    idle: RefCell<VecDeque<(Instant, SendRequest<Body>)>>,
    /// Somebody closes those whose time is over.
    swept: Cell<bool>,
}

impl Pool {
    /// One that can be used at once.
    pub fn take(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.borrow_mut();
        std::iter::from_fn(|| idle.pop_back()).map(|(_, sender)| sender).find(SendRequest::is_ready)
    }

    /// Keeps a connection as soon as the answer on it has been read.
    pub fn keep(self: &Rc<Self>, mut sender: SendRequest<Body>) {
        let pool = self.clone();
        task::spawn(async move {
            if sender.ready().await.is_ok() && pool.idle.borrow().len() < MOST {
                pool.idle.borrow_mut().push_back((Instant::now() + KEPT, sender));
                if !pool.swept.replace(true) {
                    pool.sweep().await;
                }
            }
        });
    }

    /// Closes connections when their time is over, until there are none.
    async fn sweep(&self) {
        loop {
            let first = self.idle.borrow().front().map(|(until, _)| *until);
            let Some(until) = first else { break };
            sleep_until(until).await;
            let now = Instant::now();
            self.idle.borrow_mut().retain(|(until, _)| *until > now);
        }
        self.swept.set(false);
    }
}
