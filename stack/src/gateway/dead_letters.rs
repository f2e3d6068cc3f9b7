//! `/system/dead-letters`: the asynchronous calls that were given up. They are listed, shown, put back and removed.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use provisioning::QueueName;
use serde::Serialize;

use super::Gateway;
use super::asynchronous::Unaccepted;
use super::calls::away;
use super::query::Query;
use super::queues::Queues;
use super::reply::{Refusal, empty, json, refuse};
use super::system::{Answer, bad_request};
use crate::base64;
use crate::key::Key;
use crate::queue::{DEAD_LETTERS, Letter, NotStored, Payload, Route};
use crate::timestamp;

/// Letters in one list, unless it is asked for fewer; and at most.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// Larger bodies are not shown.
const SHOWN_BYTES: usize = 64 << 10;

/// A letter in a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    number: u64,
    call_id: String,
    queue: String,
    function: String,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    attempts: u32,
    dead_at: String,
    method: String,
    path: String,
    bytes: u64,
}

/// A letter alone.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole {
    #[serde(flatten)]
    entry: Entry,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_url: Option<String>,
    /// Without those that are secrets.
    headers: BTreeMap<String, Vec<String>>,
    /// Base64, where it is small.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

/// A letter that was read.
struct Found {
    number: u64,
    route: Route,
    letter: Letter,
    payload: Payload,
}

impl Found {
    fn read(number: u64, subject: &str, message: &Bytes) -> Option<Self> {
        let (letter, call) = Letter::decode(message)?;
        Some(Self { number, route: Route::parse(subject)?, letter, payload: Payload::decode(&call).ok()? })
    }

    fn entry(&self) -> Entry {
        let call = &self.payload.call;
        Entry {
            number: self.number,
            call_id: call.id.clone(),
            queue: self.route.queue.to_string(),
            function: self.route.key.to_string(),
            reason: self.letter.reason.clone(),
            status: self.letter.status,
            attempts: self.letter.attempts,
            dead_at: timestamp::rfc3339(self.letter.at / 1000),
            method: call.method.clone(),
            path: call.path.clone(),
            bytes: call.bytes,
        }
    }

    fn whole(&self) -> Whole {
        let call = &self.payload.call;
        let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in &call.headers() {
            let secret = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(name);
            let shown = if secret { "(not shown)".into() } else { String::from_utf8_lossy(value.as_bytes()) };
            headers.entry(name.to_string()).or_default().push(shown.into_owned());
        }
        let body = &self.payload.body;
        let small = call.stored.is_none() && body.len() <= SHOWN_BYTES;
        Whole {
            entry: self.entry(),
            query: call.query.clone(),
            callback_url: call.callback.clone(),
            headers,
            body: small.then(|| base64::encode(body)),
        }
    }
}

impl Gateway {
    /// A page of them, by number.
    pub async fn dead_letters(&self, query: Option<&str>) -> Answer {
        let query = Query::parse(query);
        let number = |name: &str| match query.last(name).map(str::parse::<u64>) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(bad_request(format!("{name} is no number"))),
        };
        let limit = number("limit")?.map_or(PAGE, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let after = number("after")?.unwrap_or(0);
        let subject = subject(query.last("queue"), query.last("function"))?;
        Ok(json(&self.queues.letters(after, limit.min(LARGEST_PAGE), &subject).await?))
    }

    /// One of them.
    pub async fn dead_letter(&self, number: u64) -> Answer {
        Ok(json(&self.queues.letter(number).await?.whole()))
    }

    /// Removes one.
    pub async fn purge(&self, number: u64) -> Answer {
        // One that cannot be read can be removed.
        let stored = self.queues.letter(number).await.ok().and_then(|found| found.payload.call.stored);
        if !self.queues.broker.remove(DEAD_LETTERS, number).await.map_err(away)? {
            return Err(absent(number));
        }
        if let Some(stored) = stored {
            self.queues.remove_body(&stored).await;
        }
        Ok(empty(StatusCode::OK))
    }

    /// Puts one back into its queue.
    pub async fn replay(&self, number: u64) -> Answer {
        let _turn = self.queues.replaying.lock().await;
        let found = self.queues.letter(number).await?;
        let key = &found.route.key;
        if self.functions.get(key).and_then(|function| function.document()).is_none() {
            let message = format!(
                "dead letter {number} is a call of {key}, which is not deployed: deploy it, or purge the letter"
            );
            return Err(refuse(StatusCode::CONFLICT, message));
        }
        self.queues.prepare(&found.route.queue).await.map_err(away)?;
        let accepted = self.queues.accept(&found.route, &found.payload).await;
        accepted.map_err(|refused| match refused {
            Unaccepted::NotStored(NotStored { reason, full: true }) => {
                refuse(StatusCode::INSUFFICIENT_STORAGE, reason)
            }
            refused => away(refused.reason()),
        })?;
        // Where this fails it is there twice, and can be made twice: better than not at all.
        self.queues.broker.remove(DEAD_LETTERS, number).await.map_err(away)?;
        Ok(empty(StatusCode::ACCEPTED))
    }
}

impl Queues {
    async fn letter(&self, number: u64) -> Result<Found, Refusal> {
        self.broker.prepared().await.map_err(away)?;
        let message = self.broker.message(DEAD_LETTERS, number).await.map_err(away)?;
        let message = message.ok_or_else(|| absent(number))?;
        Found::read(number, &message.subject, &message.payload).ok_or_else(|| {
            let message = format!("dead letter {number} cannot be read; it can only be purged");
            refuse(StatusCode::UNPROCESSABLE_ENTITY, message)
        })
    }

    async fn letters(&self, after: u64, limit: usize, subject: &str) -> Result<Vec<Entry>, Refusal> {
        self.broker.prepared().await.map_err(away)?;
        let (mut found, mut next) = (Vec::new(), after.saturating_add(1));
        while found.len() < limit {
            let Some(message) = self.broker.next(DEAD_LETTERS, next, subject).await.map_err(away)? else {
                break;
            };
            next = message.sequence + 1;
            match Found::read(message.sequence, &message.subject, &message.payload) {
                // Without its body: there may be many.
                Some(letter) => found.push(letter.entry()),
                None => tracing::warn!("dead letter {} cannot be read", message.sequence),
            }
        }
        Ok(found)
    }
}

/// The subject of the letters that are wanted.
fn subject(queue: Option<&str>, function: Option<&str>) -> Result<String, Refusal> {
    let queue = match queue {
        None => "*".to_owned(),
        Some(name) => {
            let parsed = name.parse::<QueueName>();
            parsed.map_err(|error| bad_request(format!("queue {name:?} {error}")))?.to_string()
        }
    };
    let function = match function {
        None => "*.*".to_owned(),
        Some(name) => {
            let key = Key::from_path(name);
            let key = key.ok_or_else(|| bad_request(format!("function {name:?} is no function's name")))?;
            format!("{}.{}", key.namespace, key.name)
        }
    };
    Ok(format!("dead.{queue}.{function}"))
}

fn absent(number: u64) -> Refusal {
    refuse(StatusCode::NOT_FOUND, format!("there is no dead letter {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects() {
        for (queue, function, wanted) in [
            (None, None, "dead.*.*.*"),
            (Some("slow"), None, "dead.slow.*.*"),
            (None, Some("f"), "dead.*.openfaas-fn.f"),
            (Some("slow"), Some("f.dev"), "dead.slow.dev.f"),
        ] {
            assert_eq!(subject(queue, function).unwrap(), wanted);
        }
        for (queue, function) in
            [(Some("*"), None), (Some("a.b"), None), (None, Some("*")), (None, Some("f.>"))]
        {
            assert_eq!(subject(queue, function).unwrap_err().status, StatusCode::BAD_REQUEST);
        }
    }
}
