//! Against a server that answers as the gateway does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::super::account::Account;
use super::super::http::{Gateway, Host};
use super::letters::{self, Act, Filter, Outcome, Tally};
use super::{call, plain};

/// The server gives no more than so many letters at once, so that there are pages.
const SERVERS_PAGE: usize = 3;

#[derive(Default)]
struct Server {
    letters: Mutex<BTreeMap<u64, Value>>,
    asked: Mutex<Vec<String>>,
}

impl Server {
    /// With ten letters, every third one of a function that is gone, and a gateway to ask it through.
    fn start() -> (Arc<Self>, Gateway) {
        let server = Arc::new(Self::default());
        for number in (1..=10).map(|n| n * 7) {
            let function = if number % 3 == 0 { "gone.openfaas-fn" } else { "f.dev" };
            let letter = json!({
                "number": number, "callId": format!("c{number}"), "queue": "faas-request", "function": function,
                "reason": "answered 503 too often", "status": 503, "attempts": 10,
                "deadAt": "2026-11-23T22:10:05Z", "method": "POST", "path": "/x", "bytes": 12,
            });
            server.letters.lock().unwrap().insert(number, letter);
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = Host::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let serving = server.clone();
        std::thread::spawn(move || listener.incoming().for_each(|stream| serving.serve(stream.unwrap())));
        let account = Account { user: "admin".into(), password: "hay".into() };
        (server, Gateway { host, account })
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let mut words = head[0].split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        // admin:hay
        let let_in = head.iter().any(|line| line == "Authorization: Basic YWRtaW46aGF5");
        let (status, text) = if let_in { self.answer(method, path) } else { (401, String::new()) };
        self.asked.lock().unwrap().push(format!("{method} {path}"));
        let length = text.len();
        let answer = format!("HTTP/1.0 {status} Words\r\nContent-Length: {length}\r\n\r\n{text}");
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
    }

    fn answer(&self, method: &str, path: &str) -> (u16, String) {
        let mut letters = self.letters.lock().unwrap();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let asked: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        if let Some(id) = path.strip_prefix("/system/calls/") {
            return match (method, id) {
                ("GET", "a%2Fb") => (
                    200,
                    json!({ "callId": "a/b", "state": "retrying", "function": "f.dev",
                    "queue": "slow", "attempts": 2, "status": 503, "nextRetry": "2026-11-23T22:10:05Z",
                    "since": "2026-11-23T22:10:00Z" })
                    .to_string(),
                ),
                ("DELETE", "a%2Fb") => (202, String::new()),
                ("DELETE", "old") => (409, "call old is done: there is nothing left to cancel\n".to_owned()),
                _ => (404, format!("no call {id:?} is known\n")),
            };
        }
        let Some(rest) = path.strip_prefix("/system/dead-letters") else { return (404, String::new()) };
        if rest.is_empty() {
            if asked.get("queue") == Some(&"A") {
                return (400, "queue \"A\" is not a queue's name\n".to_owned());
            }
            let after: u64 = asked["after"].parse().unwrap();
            let limit: usize = asked["limit"].parse().unwrap();
            let wanted = |letter: &&Value| {
                asked.get("function").is_none_or(|name| letter["function"] == *name)
                    && asked.get("queue").is_none_or(|name| letter["queue"] == *name)
            };
            let rest = letters.range(after + 1..).map(|(_, letter)| letter).filter(wanted);
            return (200, json!(rest.take(limit.min(SERVERS_PAGE)).collect::<Vec<_>>()).to_string());
        }
        let number: u64 = rest.trim_matches('/').trim_end_matches("/replay").parse().unwrap();
        if number == 500 {
            return (503, "the queues cannot be asked: NATS does not answer\n".to_owned());
        }
        let Some(letter) = letters.get(&number) else {
            return (404, format!("there is no dead letter {number}\n"));
        };
        match (method, rest.ends_with("/replay")) {
            ("GET", false) => {
                let mut whole = letter.clone();
                whole["query"] = json!("y=1");
                whole["headers"] = json!({ "content-type": ["text/plain"], "Cookie": ["straw"],
                    "authorization": ["Bearer straw"], "x-evil": ["\u{1b}[2J"] });
                (200, whole.to_string())
            }
            ("POST", true) if letter["function"] == "gone.openfaas-fn" => {
                (409, format!("dead letter {number} is a call of gone.openfaas-fn, which is not deployed\n"))
            }
            ("POST", true) | ("DELETE", false) => {
                letters.remove(&number);
                (if method == "POST" { 202 } else { 200 }, String::new())
            }
            _ => (405, String::new()),
        }
    }

    fn numbers(&self) -> Vec<u64> {
        self.letters.lock().unwrap().keys().copied().collect()
    }
}

fn numbers(gateway: &Gateway, filter: &Filter) -> Vec<u64> {
    let mut found = Vec::new();
    letters::each(gateway, filter, &mut |letter| found.push(letter["number"].as_u64().unwrap())).unwrap();
    found
}

/// What came of each, and of all.
fn act_on(gateway: &Gateway, act: Act, numbers: &[u64]) -> (Vec<(u64, Outcome)>, Tally, Option<String>) {
    let (mut all, mut tally) = (Vec::new(), Tally::default());
    let ended = letters::act_on(gateway, act, numbers, &mut |number, outcome| {
        tally.count(&outcome);
        all.push((number, outcome));
    });
    (all, tally, ended.err().map(|error| error.to_string()))
}

#[test]
fn all_pages_are_listed() {
    let (server, gateway) = Server::start();
    assert_eq!(numbers(&gateway, &Filter::default()), server.numbers());
    let gone = Filter { function: Some("gone.openfaas-fn".into()), ..Filter::default() };
    assert_eq!(numbers(&gateway, &gone), [21, 42, 63]);
    assert_eq!(gone.words(), " of function gone.openfaas-fn");
    let other = Filter { queue: Some("a b&after=9".into()), function: None };
    assert!(numbers(&gateway, &other).is_empty());
    let asked = server.asked.lock().unwrap().pop().unwrap();
    assert_eq!(asked, "GET /system/dead-letters?limit=100&queue=a%20b%26after%3D9&after=0");
}

#[test]
fn what_the_gateway_says_of_a_wrong_name_is_said() {
    let (_server, mut gateway) = Server::start();
    let wrong = Filter { queue: Some("A".into()), function: None };
    let error = letters::each(&gateway, &wrong, &mut |_| {}).unwrap_err().to_string();
    assert_eq!(error, "queue \"A\" is not a queue's name");
    gateway.account.password = "straw".into();
    let error = letters::each(&gateway, &Filter::default(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("wrong user or password for admin"), "{error}");
}

#[test]
fn letters_are_a_table() {
    let (server, _) = Server::start();
    let all: Vec<Value> = server.letters.lock().unwrap().values().cloned().collect();
    let mut odd = all[0].clone();
    odd["status"] = Value::Null;
    odd["deadAt"] = json!("yesterday");
    odd["reason"] = json!("a\nb\u{1b}c");
    let lines = letters::table(&[all[0].clone(), odd]).lines(None);
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["NUMBER", "FUNCTION", "QUEUE", "STATUS", "ATTEMPTS", "AGE", "REASON"]
    );
    assert!(lines[1].starts_with("     7  f.dev     faas-request     503        10  "), "{}", lines[1]);
    assert!(lines[1].ends_with("answered 503 too often"), "{}", lines[1]);
    assert_eq!(
        lines[2].split_whitespace().collect::<Vec<_>>(),
        ["7", "f.dev", "faas-request", "-", "10", "-", "a?b?c"]
    );
}

#[test]
fn one_letter_is_shown_without_secrets() {
    let (_server, gateway) = Server::start();
    let letter = letters::one(&gateway, 14).unwrap();
    let text = letters::describe(&letter);
    for line in [
        "number       14\n",
        "call         c14\n",
        "function     f.dev\n",
        "reason       answered 503 too often\n",
        "given up     2026-11-23 22:10:05 UTC (",
        "request      POST /x?y=1\n",
        "size         12B\n",
        "header       content-type: text/plain\n",
        "header       authorization: (not shown)\n",
        "header       Cookie: (not shown)\n",
        "header       x-evil: ?[2J\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    assert!(!letter.to_string().contains("straw") && !text.contains("callback"), "{text}");
    assert_eq!(letters::one(&gateway, 15).unwrap_err().to_string(), "there is no dead letter 15");
}

#[test]
fn a_letter_of_a_function_that_is_gone_holds_up_nobody() {
    let (server, gateway) = Server::start();
    let (all, tally, error) = act_on(&gateway, Act::Replay, &server.numbers());
    assert_eq!((tally, error), (Tally { done: 7, absent: 0, refused: 3 }, None));
    assert_eq!(server.numbers(), [21, 42, 63]);
    let (number, outcome) = &all[2];
    assert!(
        matches!(outcome, Outcome::Refused(why) if why.ends_with("which is not deployed")),
        "{outcome:?}"
    );
    assert_eq!(outcome.report(*number, Act::Replay)["replayed"], false);
    assert_eq!(all[0].1.report(7, Act::Replay), json!({ "number": 7, "replayed": true }));
}

#[test]
fn what_is_purged_is_gone_and_what_was_gone_is_told_apart() {
    let (server, gateway) = Server::start();
    let (all, tally, error) = act_on(&gateway, Act::Purge, &[7, 8, 21]);
    assert_eq!((tally.done, tally.absent, tally.refused, error), (2, 1, 0, None));
    assert_eq!(all[1], (8, Outcome::Absent("there is no dead letter 8".to_owned())));
    assert!(!server.numbers().contains(&7) && server.numbers().len() == 8);
    assert_eq!(tally.describe(Act::Purge, false), "2 purged, 1 not");
    assert_eq!(tally.describe(Act::Purge, true), "2 purged, 1 gone meanwhile");
    assert_eq!(Tally::default().describe(Act::Replay, true), "0 replayed");
}

#[test]
fn where_no_letter_can_be_moved_the_rest_is_not_tried() {
    let (server, gateway) = Server::start();
    let (all, tally, error) = act_on(&gateway, Act::Replay, &[7, 500, 14]);
    assert_eq!((all.len(), tally.done), (1, 1));
    assert!(error.unwrap().contains("503 the queues cannot be asked"));
    assert!(server.numbers().contains(&14));
}

#[test]
fn a_call_is_shown_and_cancelled() {
    let (_server, gateway) = Server::start();
    let text = call::describe(&call::status(&gateway, "a/b").unwrap());
    for line in [
        "call         a/b\n",
        "state        retrying\n",
        "attempts     2\n",
        "next attempt 2026-11-23T22:10:05Z\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    assert!(
        text.contains("since        2026-11-23 22:10:00 UTC (") && !text.contains("dead letter"),
        "{text}"
    );
    call::cancel(&gateway, "a/b").unwrap();
    let ended = call::cancel(&gateway, "old").unwrap_err().to_string();
    assert_eq!(ended, "call old is done: there is nothing left to cancel");
    let unknown = call::status(&gateway, "x").unwrap_err().to_string();
    assert_eq!(unknown, "no call \"x\" is known");
}

#[test]
fn nothing_of_others_moves_the_cursor() {
    assert_eq!(plain("a\r\n\u{1b}[Aä\u{9b}"), "a???[Aä?");
}
