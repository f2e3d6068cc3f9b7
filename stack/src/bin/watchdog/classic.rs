//! Mode classic: mode serializing with the answers, the variables and the log of the classic watchdog.

use std::rc::Rc;
use std::time::Instant as Clock;

use hyper::body::Body as _;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::Instant;

use crate::body::{Body, full, text};
use crate::config::Config;
use crate::environment;
use crate::mode::Classic;
use crate::output::{OUT, say};
use crate::program::{Cut, Errors, bad_path, not_started, request_status};
use crate::reaper::Reaper;
use crate::seconds::Seconds;
use crate::serializing::{collect, run};

/// Everything else is refused.
const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Runs the program for one call.
pub async fn answer(
    config: &Config,
    classic: &Classic,
    reaper: &Rc<Reaper>,
    request: Request<Body>,
    deadline: Option<Instant>,
) -> Response<Body> {
    if !METHODS.contains(request.method()) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "");
    }
    let start = Clock::now();
    let (parts, body) = request.into_parts();
    if classic.debug_headers {
        show("in", &parts.headers);
    }
    say("Forking fprocess.");
    let variables = match classic.cgi_headers {
        true => environment::classic(&parts, body.size_hint().exact()),
        false => Some(Vec::new()),
    };
    let Some(variables) = variables else {
        return bad_path();
    };
    if classic.write_debug {
        say(format_args!("Query {:.256}", parts.uri.query().unwrap_or_default()));
        say(format_args!("Path {:.256}", parts.uri.path()));
    }
    let body = match collect(body, deadline).await {
        Ok(body) => body,
        Err(cut) => return failed(config, &cut, &[]),
    };
    let errors = if classic.combine_output { Errors::Combined } else { Errors::Logged };
    let ended = match run(config, reaper, variables, body, errors, deadline).await {
        Ok(ended) => ended,
        Err(error) => return not_started(config, &error),
    };
    if classic.write_debug {
        OUT.write(&ended.output);
    }
    if let Some(cut) = ended.cut {
        return failed(config, &cut, &ended.output);
    }
    let taken = Seconds(start.elapsed());
    if classic.write_debug {
        say(format_args!("Duration: {taken}s"));
    } else {
        say(format_args!("Wrote {} Bytes - Duration: {taken}s", ended.output.len()));
    }
    let kind = config.content_type.clone().or_else(|| parts.headers.get(CONTENT_TYPE).cloned());
    let kind = kind.unwrap_or_else(|| guess(&ended.output));
    let mut response = Response::new(full(ended.output));
    response.headers_mut().insert(CONTENT_TYPE, kind);
    if classic.debug_headers {
        show("out", response.headers());
    }
    response
}

/// The answer to a call that failed: with what the program wrote, which may say why.
fn failed(config: &Config, cut: &Cut, output: &[u8]) -> Response<Body> {
    match cut {
        Cut::Late => {
            say(format_args!("Killing process: {}", config.command.join(" ")));
            text(StatusCode::REQUEST_TIMEOUT, "Killed process.\n")
        }
        Cut::Request(problem) => text(request_status(problem.as_ref()), format!("{problem}\n")),
        Cut::Failed(reason) => {
            say(format_args!("{}: {reason}", config.command.join(" ")));
            text(StatusCode::INTERNAL_SERVER_ERROR, [reason.as_bytes(), b"\n", output].concat())
        }
    }
}

/// The type of an answer that nobody has named. Never one that a browser would run.
fn guess(output: &[u8]) -> HeaderValue {
    HeaderValue::from_static(match std::str::from_utf8(output) {
        Ok(_) => "text/plain; charset=utf-8",
        Err(_) => "application/octet-stream",
    })
}

fn show(way: &str, headers: &HeaderMap) {
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        OUT.write(format!("[{way}] {name}={value}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        assert_eq!(guess(b"<html>"), "text/plain; charset=utf-8");
        assert_eq!(guess(b"\xff\x00"), "application/octet-stream");
    }
}
