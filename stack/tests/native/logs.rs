//! `GET /system/logs`, from a function's FIFO through `stack log`, the real journald and journalctl to a client.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::PATIENCE;
use crate::lab::{BASIC, Lab};
use crate::namespaces::inside;

/// Streams that the gateway serves at a time.
const STREAMS: usize = 32;

/// A function's output.
fn fifo(lab: &Lab, name: &str) -> File {
    let path = lab.folder.join("fifo").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
    File::options().read(true).write(true).open(path).unwrap()
}

/// Gateway, log service and journald.
async fn start(lab: &mut Lab) {
    start_journal(lab);
    // A call's time is shorter than what follows.
    lab.arguments = ["--upstream-timeout", "1s"].map(str::to_owned).into();
    lab.start_gateway();
    lab.until_listening().await;
}

/// Log service and journald.
pub fn start_journal(lab: &mut Lab) {
    lab.start_journald();
    lab.start_log_to(Path::new("/run/systemd/journal/socket"));
}

/// The messages of an answer.
pub async fn messages(lab: &Lab, query: &str) -> Vec<Value> {
    let answer = lab.expect(200, Method::GET, &format!("/system/logs?{query}"), "").await;
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub async fn texts(lab: &Lab, query: &str) -> Vec<String> {
    let texts = messages(lab, query).await;
    texts.into_iter().map(|message| message["text"].as_str().unwrap().to_owned()).collect()
}

/// Waits until the journal has so many messages.
async fn until(lab: &Lab, query: &str, count: usize) -> Vec<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let texts = texts(lab, query).await;
        if texts.len() >= count {
            return texts;
        }
        assert!(Instant::now() < end, "{query}: {texts:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A client that follows. Dropped, it leaves without a word.
pub struct Follower {
    connection: JoinHandle<Result<(), hyper::Error>>,
    body: Incoming,
    rest: Vec<u8>,
}

impl Follower {
    pub async fn start(lab: &Lab, query: &str) -> Self {
        let stream = tokio::net::TcpStream::connect(lab.address()).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::get(format!("/system/logs?{query}")).header("host", "bothy");
        let request = request.header("authorization", BASIC).body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200, "{query}");
        Self { connection, body: response.into_body(), rest: Vec::new() }
    }

    /// The next message's text; nothing at the stream's proper end.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let message: Value = serde_json::from_slice(&line).unwrap();
                return Some(message["text"].as_str().unwrap().to_owned());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("nothing comes")?;
            self.rest.extend(frame.expect("the stream was cut").into_data().unwrap());
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Processes that read the journal, dead ones that nobody has waited for included.
fn readers() -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let reads = |process: &Path| {
        let read = |name| std::fs::read_to_string(process.join(name)).unwrap_or_default();
        let stat = read("stat");
        // It is started through its loader, whose name is all that is left of a dead one. Those of a gateway that has
        // ended are left to process 1, which is this test here and does not care.
        let unclaimed = stat.contains("(ld-linux-x86-64) Z ") && !stat.contains("(ld-linux-x86-64) Z 1 ");
        read("cmdline").contains("/usr/bin/journalctl") || unclaimed
    };
    entries.filter(|entry| reads(&entry.path())).count()
}

async fn until_no_readers() {
    let end = Instant::now() + PATIENCE;
    while readers() > 0 {
        assert!(Instant::now() < end, "{} processes read the journal for nobody", readers());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn what_functions_wrote_is_told() {
    inside("logs::what_functions_wrote_is_told", async |mut lab| {
        start(&mut lab).await;
        let mut talk = fifo(&lab, "openfaas-fn.talk.0.out");
        talk.write_all(b"first\n\x1b[31mred\x1b[0m\nno \xff text\n\n\xe2\x82\xac \"x\"\n").unwrap();
        let said = until(&lab, "name=talk", 5).await;
        assert_eq!(said, ["first", "\u{1b}[31mred\u{1b}[0m", "no \u{fffd} text", "", "€ \"x\""]);

        let all = messages(&lab, "name=talk&namespace=openfaas-fn&follow=false").await;
        let first = &all[0];
        for (field, value) in [("name", "talk"), ("namespace", "openfaas-fn"), ("instance", "talk.0")] {
            assert_eq!(first[field], value);
        }
        let times: Vec<_> = all.iter().map(|message| message["timestamp"].as_str().unwrap()).collect();
        let moments: Vec<_> = times.iter().map(|time| stack::timestamp::parse(time).unwrap()).collect();
        assert!(moments.is_sorted() && times.iter().all(|time| time.ends_with('Z')), "{times:?}");

        // How many, and since when.
        for query in ["name=talk&tail=2", "name=talk&tail=1&tail=2", "name=talk.openfaas-fn&tail=2"] {
            assert_eq!(texts(&lab, query).await, said[3..], "{query}");
        }
        for query in ["name=talk&tail=0", "name=talk&tail=-1", "name=talk&tail=100", "name=talk&since=&tail="]
        {
            assert_eq!(texts(&lab, query).await, said, "{query}");
        }
        let since = stack::timestamp::rfc3339_micros(u64::try_from(moments[4] + 1).unwrap());
        let since = since.replace(':', "%3A");
        assert_eq!(texts(&lab, &format!("name=talk&since={since}")).await, Vec::<String>::new());
        talk.write_all(b"later\n").unwrap();
        assert_eq!(until(&lab, &format!("name=talk&since={since}"), 1).await, ["later"]);
        assert_eq!(texts(&lab, &format!("name=talk&since={since}&tail=5")).await, ["later"]);
        assert_eq!(texts(&lab, "name=talk&since=2001-01-01T00:00:00%2B01:00").await.len(), 6);
        assert_eq!(texts(&lab, "name=talk&since=2999-01-01T00:00:00Z").await, Vec::<String>::new());

        // Of whom: an instance, a function that is gone, one that was never there.
        let mut other = fifo(&lab, "openfaas-fn.talk.1.err");
        other.write_all(b"from the other\n").unwrap();
        for instance in ["talk.1", "1"] {
            assert_eq!(until(&lab, &format!("name=talk&instance={instance}"), 1).await, ["from the other"]);
        }
        assert_eq!(texts(&lab, "name=talk&instance=talk.0&tail=1").await, ["later"]);
        for query in ["name=talk&instance=talk.7", "name=talk&namespace=dev", "name=nobody", "name=tal"] {
            assert_eq!(texts(&lab, query).await, Vec::<String>::new(), "{query}");
        }
        // The same name in another namespace is another function.
        let mut namesake = fifo(&lab, "dev.talk.0.out");
        namesake.write_all(b"from dev\n").unwrap();
        for query in ["name=talk&namespace=dev", "name=talk.dev", "name=talk&namespace=dev&instance=talk.0"] {
            assert_eq!(until(&lab, query, 1).await, ["from dev"]);
        }
        assert_eq!(messages(&lab, "name=talk.dev").await[0]["namespace"], "dev");
        assert_eq!(texts(&lab, "name=talk").await.len(), 7);

        // A line that takes several entries, and more of them than fit into any pipe.
        let long: String = "0123456789abcdef".repeat(16 << 10);
        let mut large = fifo(&lab, "openfaas-fn.large.0.out");
        let writer = std::thread::spawn({
            let line = format!("{long}\n");
            move || large.write_all(line.as_bytes()).map(|()| large).unwrap()
        });
        let parts = until(&lab, "name=large", 6).await;
        assert!(parts.concat() == long, "{} of {} bytes came", parts.concat().len(), long.len());
        drop(writer.join().unwrap());

        for (query, part) in [
            ("", "name"),
            ("namespace=openfaas-fn", "name"),
            ("name=A_b", "name"),
            ("name=talk&since=yesterday", "since"),
            ("name=talk&tail=all", "tail"),
            ("name=talk&follow=maybe", "follow"),
        ] {
            let refused = lab.expect(422, Method::GET, &format!("/system/logs?{query}"), "").await;
            assert!(refused.text.starts_with("could not parse the log request"), "{}", refused.text);
            assert!(refused.text.contains(part), "{query}: {}", refused.text);
        }
        lab.expect(405, Method::POST, "/system/logs?name=talk", "").await;
        let refused = lab.ask_with(Method::GET, "/system/logs?name=talk", "", &[]).await.unwrap();
        assert_eq!(refused.status, 401);
    });
}

#[test]
fn a_stream_lasts_as_long_as_its_client() {
    inside("logs::a_stream_lasts_as_long_as_its_client", async |mut lab| {
        start(&mut lab).await;
        let mut talk = fifo(&lab, "openfaas-fn.talk.0.out");
        talk.write_all(b"one\ntwo\n").unwrap();
        until(&lab, "name=talk", 2).await;
        until_no_readers().await;

        let mut all = Follower::start(&lab, "name=talk&tail=-1&follow=true").await;
        let mut last = Follower::start(&lab, "name=talk&tail=1&follow=1").await;
        let mut early = Follower::start(&lab, "name=later&follow=true").await;
        // As the command line client asks, and one whose clock is ahead.
        let mut usual = Follower::start(&lab, "follow=true&instance=&name=talk&namespace=&tail=-1").await;
        let mut ahead = Follower::start(&lab, "name=talk&since=2999-01-01T00%3A00%3A00Z&follow=true").await;
        assert_eq!((all.next().await.unwrap(), all.next().await.unwrap()), ("one".into(), "two".into()));
        assert_eq!((usual.next().await.unwrap(), usual.next().await.unwrap()), ("one".into(), "two".into()));
        assert_eq!(last.next().await.unwrap(), "two");
        // Longer than any call of a function may take.
        tokio::time::sleep(Duration::from_secs(8)).await;
        talk.write_all(b"three\n").unwrap();
        let mut later = fifo(&lab, "openfaas-fn.later.0.out");
        later.write_all(b"here\n").unwrap();
        assert_eq!(all.next().await.unwrap(), "three");
        assert_eq!(last.next().await.unwrap(), "three");
        assert_eq!(usual.next().await.unwrap(), "three");
        assert_eq!(ahead.next().await.unwrap(), "three");
        assert_eq!(early.next().await.unwrap(), "here");
        assert_eq!(readers(), 5);
        drop((all, last, early, usual, ahead));
        until_no_readers().await;

        // So many at a time; whoever leaves makes room.
        let mut many = Vec::new();
        for _ in 0..STREAMS {
            many.push(Follower::start(&lab, "name=talk&follow=true").await);
        }
        let refused = lab.expect(429, Method::GET, "/system/logs?name=talk", "").await;
        assert!(refused.text.contains("32 streams"), "{}", refused.text);
        many.pop();
        let end = Instant::now() + PATIENCE;
        while lab.ask(Method::GET, "/system/logs?name=talk", "").await.unwrap().status != 200 {
            assert!(Instant::now() < end, "the place of who left stays taken");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }

        // The gateway ends in good order: so do the streams, and their processes.
        let mut one = many.pop().unwrap();
        let (status, _) = lab.stop_gateway();
        assert_eq!(status, Some(0));
        while one.next().await.is_some() {}
        until_no_readers().await;
    });
}

#[test]
fn a_stream_outlives_rotation_and_journald() {
    inside("logs::a_stream_outlives_rotation_and_journald", async |mut lab| {
        start_journal(&mut lab);
        lab.start_gateway();
        lab.until_listening().await;
        let mut talk = fifo(&lab, "openfaas-fn.talk.0.out");
        talk.write_all(b"one\n").unwrap();
        until(&lab, "name=talk", 1).await;
        let mut follower = Follower::start(&lab, "name=talk&follow=true").await;
        assert_eq!(follower.next().await.unwrap(), "one");

        // A new file, and the old ones are gone.
        for word in ["--rotate", "--vacuum-files=1", "--sync"] {
            let done = lab.journalctl(&[word]);
            assert!(done.status.success(), "{word}: {}", String::from_utf8_lossy(&done.stderr));
        }
        talk.write_all(b"two\n").unwrap();
        assert_eq!(follower.next().await.unwrap(), "two");
        assert_eq!(texts(&lab, "name=talk").await, ["two"], "the vacuum took the first line");

        // journald dies; what was said meanwhile comes when the next one is there.
        lab.kill_journald();
        talk.write_all(b"three\n").unwrap();
        lab.start_journald();
        assert_eq!(follower.next().await.unwrap(), "three");
        talk.write_all(b"four\n").unwrap();
        assert_eq!(follower.next().await.unwrap(), "four");
        assert_eq!(texts(&lab, "name=talk").await, ["two", "three", "four"]);
    });
}

/// Lines of one function in one go.
const FLOOD: u64 = 20_000;

#[test]
fn a_flood_keeps_its_order_and_what_is_missing_is_told() {
    inside("logs::a_flood_keeps_its_order_and_what_is_missing_is_told", async |mut lab| {
        start(&mut lab).await;
        let (mut talk, mut quiet) =
            (fifo(&lab, "openfaas-fn.talk.0.out"), fifo(&lab, "openfaas-fn.quiet.0.out"));
        let mut follower = Follower::start(&lab, "name=talk&follow=true").await;
        // On a thread of its own: a function that was held up for good would never come to its last line.
        let writer = std::thread::spawn(move || {
            for number in 0..FLOOD {
                talk.write_all(format!("{number}\n").as_bytes()).unwrap();
            }
            talk
        });
        let (mut next, mut missing) = (0, 0);
        while next + missing < FLOOD {
            let text = follower.next().await.unwrap();
            match text.split_once(" lines of this function's output were dropped") {
                Some((count, _)) => missing += count.parse::<u64>().unwrap(),
                None => {
                    let number: u64 = text.parse().unwrap();
                    assert_eq!(number, next + missing, "{missing} lines were said to be missing here");
                    (next, missing) = (number + 1, 0);
                }
            }
        }
        drop(writer.join().unwrap());
        quiet.write_all(b"still heard\n").unwrap();
        assert_eq!(until(&lab, "name=quiet", 1).await, ["still heard"]);
    });
}
