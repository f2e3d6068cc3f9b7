//! Who waits for instances to be gone: whoever deleted a function, or scaled it to none.

use std::collections::HashSet;

use tokio::sync::oneshot;

use super::functions::Refused;
use crate::error::Error;

/// One of them.
pub struct Farewell {
    /// The instances.
    ids: HashSet<String>,
    /// Told when they are gone.
    reply: oneshot::Sender<Result<(), Refused>>,
}

/// All of a function's.
#[derive(Default)]
pub struct Farewells(Vec<Farewell>);

impl Farewells {
    /// Somebody waits for these.
    pub fn wait(&mut self, ids: HashSet<String>, reply: oneshot::Sender<Result<(), Refused>>) {
        self.0.push(Farewell { ids, reply });
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells those whose instances are gone, given what is there.
    pub fn tell(&mut self, is_there: impl Fn(&str) -> bool) {
        for mut farewell in std::mem::take(&mut self.0) {
            farewell.ids.retain(|id| is_there(id));
            if farewell.ids.is_empty() {
                // Whoever asked may have gone.
                let _ = farewell.reply.send(Ok(()));
            } else {
                self.0.push(farewell);
            }
        }
    }

    /// Tells who waits for an instance that it could not be removed. It is tried again; nobody has to ask again.
    pub fn fail(&mut self, id: &str, error: Error) {
        if let Some(at) = self.0.iter().position(|farewell| farewell.ids.contains(id)) {
            let _ = self.0.swap_remove(at).reply.send(Err(error.into()));
        }
    }

    /// Tells one of those who wait that nothing can be seen.
    pub fn fail_blindly(&mut self, error: Error) {
        if let Some(farewell) = self.0.pop() {
            let _ = farewell.reply.send(Err(error.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_when_the_last_of_his_is_gone() {
        let mut farewells = Farewells::default();
        let (one, mut first) = oneshot::channel();
        let (two, mut second) = oneshot::channel();
        farewells.wait(["f.0".to_owned(), "f.1".to_owned()].into(), one);
        farewells.wait(["f.2".to_owned()].into(), two);
        farewells.tell(|id| id != "f.0");
        assert!(first.try_recv().is_err());
        farewells.fail("f.2", Error::Invalid { what: "f.2".into(), reason: "stays".into() });
        assert!(matches!(second.try_recv(), Ok(Err(Refused::Failed(_)))));
        farewells.tell(|_| false);
        assert!(matches!(first.try_recv(), Ok(Ok(()))));
        assert!(farewells.is_empty());
    }
}
