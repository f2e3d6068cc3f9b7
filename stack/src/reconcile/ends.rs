//! Ends that nobody asked for: taken note of, told in the function's own log, and followed by a start.

use std::time::{Duration, Instant};

use super::actor::Actor;
use super::counts::Reason;
use super::exit::Exit;
use super::function::Function;
use super::instance::Instance;
use super::serving::Serving;
use super::{World, surroundings};
use crate::containerd::Task;
use crate::desired::Document;
use crate::error::Error;

/// How long containerd may take to tell the status of a process that has ended.
const STATUS: Duration = Duration::from_secs(2);

impl Actor {
    /// Takes note of instances that served, or were to, and whose processes have ended.
    pub(super) async fn bury(&mut self, instances: &[Instance]) {
        let is = |id: &str, task: &[Task]| instances.iter().any(|i| i.id == id && task.contains(&i.task));
        let rests = [Task::Created, Task::Alive, Task::Unclear];
        if let Some(rested) = self.resting.take_if(|resting| !is(&resting.instance.id, &rests))
            && rested.has_begun()
        {
            let exit = self.exit(&rested.instance).await;
            self.note_end_of_rest(&rested.instance, exit);
        }
        let (serving, ended): (Vec<_>, Vec<_>) = self
            .serving
            .drain(..)
            .partition(|serving| is(&serving.instance.id, &[Task::Alive, Task::Unclear]));
        self.serving = serving;
        let wanted = self.document.as_ref().is_some_and(Document::wants_instance);
        for ended in ended {
            self.function.left(&ended.endpoint);
            if wanted {
                let exit = self.exit(&ended.instance).await;
                self.note_exit(&ended.instance, exit);
                self.replace(&ended, exit.into(), &exit.to_string());
            }
        }
        self.ends.clear();
        if !std::mem::replace(&mut self.inherited, true) {
            self.bury_inherited(instances).await;
        }
    }

    /// Those that served in a former life, and ended when nobody looked.
    async fn bury_inherited(&mut self, instances: &[Instance]) {
        if !self.document.as_ref().is_some_and(Document::wants_instance) {
            return;
        }
        let ended: Vec<_> = self.good(instances, Task::Stopped).cloned().collect();
        for instance in &ended {
            let exit = self.exit(instance).await;
            tracing::warn!("{}: {exit}, while no gateway was here", instance.name());
            self.note_exit(instance, exit);
            self.function.counts.restarted(exit);
        }
    }

    /// How an instance's process ended.
    pub(super) async fn exit(&mut self, instance: &Instance) -> Exit {
        let status = match self.ends.remove(&instance.id).flatten() {
            Some(status) => Some(status),
            // We saw its end before we were told of it.
            None => {
                let namespace = instance.key.namespace.as_str();
                let waited = self.world.containerd.wait_task(namespace, &instance.id);
                tokio::time::timeout(STATUS, waited).await.ok().and_then(Result::ok)
            }
        };
        Exit::of(&self.world.settings.cgroup_root, instance, status)
    }

    /// One that stood still has ended, and the call that was to let it go on came first.
    pub(super) fn bury_rested(&mut self, instance: &Instance) {
        // No time to ask for the status: the call waits.
        let status = self.ends.remove(&instance.id).flatten();
        let exit = Exit::of(&self.world.settings.cgroup_root, instance, status);
        self.note_end_of_rest(instance, exit);
    }

    /// The next call finds another one: nothing is to be started again.
    fn note_end_of_rest(&self, instance: &Instance, exit: Exit) {
        tracing::warn!("{}: {exit}; it was scaled to zero", self.function.key);
        self.note_exit(instance, exit);
    }

    fn note_exit(&self, instance: &Instance, exit: Exit) {
        self.function.counts.exits.note(instance, exit);
        self.say(instance, &exit.to_string());
    }

    /// An instance whose process runs is given up.
    pub(super) fn give_up(&mut self, lost: &Serving, reason: &str) {
        let cause = format!("it is not well: {reason}");
        self.say(&lost.instance, &cause);
        self.replace(lost, Reason::Unwell, &cause);
        self.leave(lost);
    }

    /// An instance is lost: another one takes its place, at once or a while later.
    fn replace(&mut self, lost: &Serving, reason: Reason, cause: &str) {
        let delay = self.backoff.ended(lost.since);
        tracing::warn!("{}: {cause}, start again in {} ms", self.function.key, delay.as_millis());
        self.functions.notices.set(&self.function.key, cause);
        self.function.counts.restarted(reason);
        self.not_before = Some(Instant::now() + delay);
        if delay.is_zero() {
            self.function.starting();
        } else {
            self.function.failed(cause);
        }
    }

    /// Says something in an instance's own log.
    fn say(&self, instance: &Instance, text: &str) {
        surroundings::say(&self.world.settings.fifos, &instance.name(), text);
    }
}

/// A start came to nothing. To be called while something is there of the instance.
pub fn note_failure(world: &World, function: &Function, instance: &Instance, error: &Error) {
    if let Some(exit) = Exit::told_by(error) {
        function.counts.exits.note(instance, exit);
    }
    surroundings::say(&world.settings.fifos, &instance.name(), &error.to_string());
}
