//! `[stack]` and the tables within it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ELSEWHERE, file, refuse_unless};
use crate::reader::Reader;
use crate::report::Report;
use crate::timeout::shown;
use crate::{Idler, Invalid, Login, NamedQueue, Nats, Queue, QueueName, Retries, Stack};

pub(super) const STACK: [&str; 4] = ["nats", "queue", "queues", "idler"];
pub(super) const NATS: [&str; 6] = ["url", "replicas", "user", "password", "credentials", "ca"];
pub(super) const QUEUE: [&str; 9] = [
    "max_inflight",
    "ack_wait",
    "max_retry_attempts",
    INITIAL_WAIT,
    MAX_WAIT,
    "retry_http_codes",
    "backoff",
    MAX_BODY,
    MAX_BYTES,
];
pub(super) const NAMED_QUEUE: [&str; 1] = ["max_inflight"];
pub(super) const IDLER: [&str; 2] = ["inactivity_duration", "reconcile_interval"];
const INITIAL_WAIT: &str = "initial_retry_wait";
const MAX_WAIT: &str = "max_retry_wait";
const MAX_BODY: &str = "max_body";
const MAX_BYTES: &str = "max_bytes";

/// More calls at a time than that are more connections than a machine has memory for.
const INFLIGHT: RangeInclusive<u32> = 1..=1000;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

pub(super) fn stack<'t>(table: &DeTable<'t>, report: &mut Report<'t>) -> Stack {
    let mut reader = Reader { table, report };
    reader.only("in `[stack]`", &STACK, ELSEWHERE);
    Stack {
        nats: reader.table("nats").map(|table| nats(table, reader.report)).unwrap_or_default(),
        queue: reader.table("queue").map(|table| queue(table, reader.report)).unwrap_or_default(),
        queues: reader.table("queues").map(|table| queues(table, reader.report)).unwrap_or_default(),
        idler: reader.table("idler").map(|table| idler(table, reader.report)).unwrap_or_default(),
    }
}

fn nats<'t>(table: &DeTable<'t>, report: &mut Report<'t>) -> Nats {
    if let Some(password) = table.get("password") {
        report.hide(password.span());
    }
    let mut reader = Reader { table, report };
    reader.only("in `[stack.nats]`", &NATS, ELSEWHERE);
    let nats = Nats {
        url: reader.value("url"),
        replicas: reader.integer("replicas", 1..=5).unwrap_or(1),
        login: login(&mut reader),
        ca: reader.checked("ca", file).map(PathBuf::from),
    };
    // The machine's own server is one, and asks nobody who he is.
    let mut others = NATS.iter().filter(|key| **key != "replicas" || nats.replicas > 1);
    if table.get("url").is_none()
        && let Some((key, value)) = others.find_map(|key| Some((key, table.get(*key)?)))
    {
        let message =
            format!("`{key}` is for another NATS server than the machine's own, expected `url` too");
        let hint = "write `url = \"nats://HOST:4222\"` beside it".to_owned();
        reader.report.problem(value.span(), message, Some(hint));
    }
    nats
}

/// A name and a password, or a file.
fn login(reader: &mut Reader<'_, '_, '_>) -> Option<Login> {
    let user = reader.checked("user", user);
    let password = reader.value("password");
    let credentials = reader.checked("credentials", file).map(PathBuf::from);
    let [has_user, has_password] = ["user", "password"].map(|key| reader.get(key).map(Spanned::span));
    match (has_user, has_password, reader.get("credentials")) {
        (Some(_), _, Some(file)) | (_, Some(_), Some(file)) => {
            let message = "`credentials` stands for a user, expected it without `user` and `password`";
            reader.report.problem(file.span(), message, None);
            None
        }
        (Some(place), None, None) => {
            reader.report.problem(place, "`user` needs a password, expected `password` beside it", None);
            None
        }
        (None, Some(place), None) => {
            reader.report.problem(place, "`password` needs a user, expected `user` beside it", None);
            None
        }
        (None, None, _) => credentials.map(Login::Credentials),
        (Some(_), Some(_), None) => Some(Login::Password { user: user?, password: password? }),
    }
}

fn user(text: &str) -> Result<(), Invalid> {
    let fits = !text.is_empty() && text.len() <= 256 && !text.contains(char::is_control);
    refuse_unless(fits, "is not a user name, expected 1 to 256 characters without control characters")
}

fn queue<'t>(table: &DeTable<'t>, report: &mut Report<'t>) -> Queue {
    let default = Queue::default();
    let mut reader = Reader { table, report };
    reader.only("in `[stack.queue]`", &QUEUE, ELSEWHERE);
    let max_body = reader.memory(MAX_BODY, 1..=1 << 30);
    let max_bytes = reader.memory(MAX_BYTES, 1 << 20..=1 << 50);
    let queue = Queue {
        max_inflight: reader.integer("max_inflight", INFLIGHT).unwrap_or(default.max_inflight),
        ack_wait: reader.time("ack_wait", 5..=HOUR).unwrap_or(default.ack_wait),
        retries: retries(&mut reader),
        max_body: max_body.unwrap_or(default.max_body),
        max_bytes,
    };
    // Of a wrong one nobody knows what it should have been.
    let known = max_body.is_some() || table.get(MAX_BODY).is_none();
    if known
        && queue.max_bytes.is_some_and(|most| most < queue.max_body)
        && let Some(place) = table.get(MAX_BYTES)
    {
        let message = format!(
            "`{MAX_BYTES}` is less than `{MAX_BODY}`, which is {}, expected room for one call at least",
            crate::quantity::shown(queue.max_body)
        );
        reader.report.problem(place.span(), message, None);
    }
    queue
}

/// Two times, the second not below the first.
fn retries(reader: &mut Reader<'_, '_, '_>) -> Retries {
    let default = Retries::default();
    let attempts = reader.integer("max_retry_attempts", 0..=1000).unwrap_or(default.attempts);
    let (initial, max) = (reader.time(INITIAL_WAIT, 1..=HOUR), reader.time(MAX_WAIT, 1..=DAY));
    let retries = Retries {
        attempts,
        initial_wait: initial.unwrap_or(default.initial_wait),
        max_wait: max.unwrap_or(default.max_wait),
        codes: codes(reader).unwrap_or(default.codes),
        backoff: reader.value("backoff").unwrap_or_default(),
    };
    let known = (initial.is_some() || reader.get(INITIAL_WAIT).is_none())
        && (max.is_some() || reader.get(MAX_WAIT).is_none());
    if known
        && retries.max_wait < retries.initial_wait
        && let Some(place) = reader.get(MAX_WAIT).or(reader.get(INITIAL_WAIT))
    {
        let [initial_wait, max_wait] =
            [retries.initial_wait, retries.max_wait].map(|time| shown(time.as_secs()));
        let message = format!(
            "`{MAX_WAIT}` is {max_wait} and `{INITIAL_WAIT}` is {initial_wait}, expected the first to be no less than \
             the second"
        );
        let hint = (initial.is_none() || max.is_none()).then(|| {
            let [initial, max] = [default.initial_wait, default.max_wait].map(|time| shown(time.as_secs()));
            format!("write both: without them they are {max} and {initial}")
        });
        reader.report.problem(place.span(), message, hint);
    }
    retries
}

/// `"408,429"` as OpenFaaS has it, or `[408, 429]`.
fn codes(reader: &mut Reader<'_, '_, '_>) -> Option<BTreeSet<u16>> {
    const KEY: &str = "retry_http_codes";
    let value = reader.get(KEY)?;
    let words: Vec<(Cow<'_, str>, Range<usize>)> = match value.get_ref() {
        DeValue::String(text) => text.split(',').map(|word| (word.trim().into(), value.span())).collect(),
        DeValue::Array(items) => {
            let mut words = Vec::new();
            for item in items.iter() {
                match item.get_ref() {
                    DeValue::Integer(number) => words.push((number.to_string().into(), item.span())),
                    other => reader.wrong_kind(KEY, item.span(), "only whole numbers", other),
                }
            }
            words
        }
        other => {
            let expected = "status codes, such as \"408,429,503\" or [408, 429, 503]";
            reader.wrong_kind(KEY, value.span(), expected, other);
            return None;
        }
    };
    let mut codes = BTreeSet::new();
    for (word, place) in words {
        match code(&word) {
            Ok(code) => drop(codes.insert(code)),
            Err(invalid) => {
                let word: String = word.chars().take(16).collect();
                reader.report.problem(place, format!("`{word}` in `{KEY}` {invalid}"), None);
            }
        }
    }
    Some(codes)
}

fn code(word: &str) -> Result<u16, Invalid> {
    let digits = word.len() == 3 && word.bytes().all(|b| b.is_ascii_digit());
    let code = word.parse().ok().filter(|code| digits && Retries::FAILURES.contains(code));
    code.ok_or_else(|| {
        Invalid(
            "is no status code of a failure, expected codes from 400 to 599, such as 429 and 503".to_owned(),
        )
    })
}

fn queues<'t>(table: &DeTable<'t>, report: &mut Report<'t>) -> BTreeMap<QueueName, NamedQueue> {
    let mut named = BTreeMap::new();
    for (name, value) in table.iter() {
        let word: &str = name.get_ref();
        let short: String = word.chars().take(64).collect();
        let parsed = word.parse::<QueueName>();
        if let Err(invalid) = &parsed {
            report.problem(name.span(), format!("`{short}` {invalid}"), None);
        }
        let DeValue::Table(settings) = value.get_ref() else {
            if parsed.is_ok() {
                let message = format!(
                    "`{short}` in `[stack.queues]` is no table, expected `[stack.queues.NAME]` and its keys"
                );
                let of_all = QUEUE.contains(&word);
                let hint = of_all.then(|| format!("for all queues, `{short}` belongs under `[stack.queue]`"));
                report.problem(value.span(), message, hint);
            }
            continue;
        };
        let mut reader = Reader { table: settings, report };
        reader.only(&format!("in `[stack.queues.{short}]`"), &NAMED_QUEUE, ELSEWHERE);
        let queue = NamedQueue { max_inflight: reader.integer("max_inflight", INFLIGHT) };
        if let Ok(parsed) = parsed {
            named.insert(parsed, queue);
        }
    }
    named
}

fn idler<'t>(table: &DeTable<'t>, report: &mut Report<'t>) -> Idler {
    let default = Idler::default();
    let mut reader = Reader { table, report };
    reader.only("in `[stack.idler]`", &IDLER, ELSEWHERE);
    Idler {
        inactivity: reader.time("inactivity_duration", 1..=30 * DAY).unwrap_or(default.inactivity),
        interval: reader.time("reconcile_interval", 1..=HOUR).unwrap_or(default.interval),
    }
}
