//! `GET /system/logs`: what functions wrote, out of the journal, where `stack log` put it.
//!
//! One journalctl for each stream, ended with it: what a client does not read waits in its pipe and in nobody's memory.
//! It reads the journal of functions that are gone as well, as long as the journal keeps them.

mod entry;
mod reader;
mod stream;
mod wanted;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::reply::{Body, Refusal, refuse};
use crate::timestamp;
use stream::{Source, Stream};
use wanted::Wanted;

/// Most streams at a time: each has a process, of about a mebibyte beside what the journal's files share.
const STREAMS: usize = 32;

/// Where journalctl looks for the machine's journal; journald makes one of them.
const PLACES: [&str; 2] = ["/var/log/journal", "/run/log/journal"];

/// Where the journal is, who reads it, and how many are told.
pub struct Logs {
    source: Source,
    places: Arc<Semaphore>,
    /// The gateway ends.
    ending: CancellationToken,
}

impl Logs {
    /// `folder` is a journal other than the machine's own. Streams end with `ending`.
    pub fn new(program: PathBuf, folder: Option<PathBuf>, ending: CancellationToken) -> Self {
        Self { source: Source { program, folder }, places: Arc::new(Semaphore::new(STREAMS)), ending }
    }

    /// Answers a request: a line of JSON for each entry, as they come.
    pub async fn serve(&self, query: Option<&str>) -> Result<Response<Body>, Refusal> {
        let wanted = Wanted::parse(query, timestamp::now_micros()).map_err(|reason| {
            refuse(StatusCode::UNPROCESSABLE_ENTITY, format!("could not parse the log request: {reason}"))
        })?;
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            let message = format!("{STREAMS} streams of logs are open, which is the most: close one first");
            return Err(refuse(StatusCode::TOO_MANY_REQUESTS, message));
        };
        self.look()?;
        let follow = wanted.follow;
        let stream = Stream::open(self.source.clone(), wanted, self.ending.clone(), place);
        let mut stream = stream.map_err(|error| self.cannot_start(&error))?;
        // Who follows may wait long for the first line. Who does not hears of a failure in place of an empty answer.
        let first =
            if follow { None } else { stream.next().await.map_err(|error| failed(&error.to_string()))? };
        let lines = futures_util::stream::iter(first.map(Ok)).chain(stream.rest()).map_ok(Frame::data);
        let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(lines)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        Ok(response)
    }

    /// Whether there is a journal at all: journalctl would only say that it is empty.
    fn look(&self) -> Result<(), Refusal> {
        let places: Vec<_> = match &self.source.folder {
            Some(folder) => vec![folder.as_path()],
            None => PLACES.iter().map(Path::new).collect(),
        };
        if places.iter().any(|place| place.exists()) {
            return Ok(());
        }
        let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        Err(absent(&format!("there is no journal at {}", places.join(" or "))))
    }

    fn cannot_start(&self, error: &io::Error) -> Refusal {
        let what = format!("start {}: {error}", self.source.program.display());
        tracing::error!("{what}");
        if error.kind() == ErrorKind::NotFound { absent(&what) } else { failed(&what) }
    }
}

fn absent(what: &str) -> Refusal {
    let message = format!("log request failed: {what}: logs are there where systemd-journald keeps them");
    refuse(StatusCode::NOT_IMPLEMENTED, message)
}

fn failed(what: &str) -> Refusal {
    refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("log request failed: {what}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    /// A program in journalctl's place.
    fn logs(folder: &Path, script: &str) -> Logs {
        let path = folder.join("journalctl");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Logs::new(path, Some(folder.to_owned()), CancellationToken::new())
    }

    async fn text(response: Response<Body>) -> Result<String, String> {
        let collected = tokio::time::timeout(Duration::from_secs(30), response.into_body().collect()).await;
        let bytes = collected.unwrap().map_err(|error| error.to_string())?.to_bytes();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    #[tokio::test]
    async fn what_is_no_entry_is_left_out_and_a_failure_is_no_end() {
        let folder = tempfile::tempdir().unwrap();
        let entry = r#"{"__REALTIME_TIMESTAMP":"1000000","MESSAGE":"MINE"}"#;
        let lines = format!("echo '{}'; echo nonsense; echo; printf '{entry}'", entry.replace("MINE", "x"));
        for follow in ["0", "1"] {
            let response =
                logs(folder.path(), &lines).serve(Some(&format!("name=f&follow={follow}"))).await.unwrap();
            assert_eq!(response.headers()[CONTENT_TYPE], "application/x-ndjson");
            let said = text(response).await.unwrap();
            let texts: Vec<_> = said.lines().map(|line| line.rsplit_once(':').unwrap().1).collect();
            assert_eq!(texts, [r#""x"}"#, r#""MINE"}"#]);
        }

        let refused = logs(folder.path(), "exit 3").serve(Some("name=f")).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(refused.text, "log request failed: journalctl ended with exit status: 3");
        let broken = logs(folder.path(), &format!("{lines}; echo; exit 3"));
        let error = text(broken.serve(Some("name=f")).await.unwrap()).await.unwrap_err();
        assert!(error.contains("exit status: 3"), "{error}");
    }

    #[tokio::test]
    async fn it_goes_on_behind_the_last_line_when_journalctl_gives_up() {
        let folder = tempfile::tempdir().unwrap();
        // Each tells how it was asked, a word in each line, and gives up. From the fourth on they say nothing.
        let script = r#"n=$(cat COUNT 2>/dev/null || echo 0); echo $((n + 1)) >COUNT
            test $n -lt 3 && for word; do
                case $word in --since*|--after*|--lines*|--follow)
                    printf '{"__CURSOR":"s=%s","__REALTIME_TIMESTAMP":"1","MESSAGE":"%s"}\n' $n $word
                esac
            done
            exit 1"#;
        let count = folder.path().join("count");
        let script = script.replace("COUNT", &count.display().to_string());
        let query = "name=f&follow=1&tail=7&since=1970-01-01T00:00:01Z";
        let response = logs(folder.path(), &script).serve(Some(query)).await.unwrap();
        let mut body = response.into_body();
        let mut said = Vec::new();
        let error = loop {
            match tokio::time::timeout(Duration::from_secs(30), body.frame()).await.unwrap().unwrap() {
                Ok(frame) => said.extend(frame.into_data().unwrap()),
                Err(error) => break error.to_string(),
            }
        };
        let said = String::from_utf8(said).unwrap();
        let lines = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let texts: Vec<_> = lines.map(|line| line["text"].as_str().unwrap().to_owned()).collect();
        let again = |n: u32| [format!("--after-cursor=s={n}"), "--follow".to_owned()];
        let wanted = ["--since=@1.000000", "--lines=7", "--follow"].map(str::to_owned);
        assert_eq!(texts, [&wanted[..], &again(0), &again(1)].concat());
        assert_eq!(error, "journalctl ended with exit status: 1");
        assert_eq!(fs::read_to_string(count).unwrap(), "6\n", "three that spoke, and three tries after them");
    }

    #[tokio::test]
    async fn refusals() {
        let folder = tempfile::tempdir().unwrap();
        let at = |journal: &str| {
            let (program, journal) = (folder.path().join("absent"), folder.path().join(journal));
            Logs::new(program, Some(journal), CancellationToken::new())
        };
        let refused = at("").serve(None).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(refused.text.starts_with("could not parse the log request"), "{}", refused.text);
        for (journal, wanted) in [("", "absent: No such file"), ("none", "there is no journal at ")] {
            let refused = at(journal).serve(Some("name=f")).await.unwrap_err();
            assert_eq!(refused.status, StatusCode::NOT_IMPLEMENTED);
            assert!(refused.text.starts_with("log request failed: "), "{}", refused.text);
            assert!(refused.text.contains(wanted), "{}", refused.text);
        }
    }

    #[tokio::test]
    async fn so_many_streams_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let logs = logs(folder.path(), "exec sleep 1000");
        let mut open = Vec::new();
        for _ in 0..STREAMS {
            open.push(logs.serve(Some("name=f&follow=1")).await.unwrap());
        }
        let refused = logs.serve(Some("name=f")).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        open.pop();
        open.push(logs.serve(Some("name=f&follow=1")).await.unwrap());
        // The gateway ends: so does each of them, as if there were no more to read.
        logs.ending.cancel();
        for response in open {
            assert_eq!(text(response).await.unwrap(), "");
        }
    }
}
