//! One file for each target: `check` takes an input and panics when something is not as it has to be.

pub mod alerts;
pub mod basic_auth;
pub mod bothy_toml;
pub mod callbacks;
pub mod calls;
pub mod challenges;
pub mod deployments;
pub mod docker_config;
pub mod durations;
pub mod environments;
pub mod headers;
pub mod journal;
pub mod ledger;
pub mod letters;
pub mod locations;
pub mod log_requests;
pub mod manifests;
pub mod namespaces;
pub mod paths;
pub mod quantities;
pub mod queries;
pub mod ranges;
pub mod references;
pub mod retries;
pub mod secrets;
pub mod timestamps;
pub mod watchdog_config;

/// Base64 (RFC 4648, section 4) by the book, for comparison; padding may be missing.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    const SYMBOLS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let symbols = &text[..text.len() - padding];
    let mut bits = String::new();
    for symbol in symbols {
        bits.push_str(&format!("{:06b}", SYMBOLS.find(char::from(*symbol))?));
    }
    let bytes = bits.as_bytes().chunks_exact(8);
    let bytes = bytes.map(|byte| u8::from_str_radix(str::from_utf8(byte).unwrap(), 2).unwrap());
    (padding <= 2 && symbols.len() % 4 != 1).then(|| bytes.collect())
}

/// Headers, one a line; what is none is left out.
fn headers(text: &[u8]) -> hyper::HeaderMap {
    let lines = text.split(|byte| *byte == b'\n');
    let pairs = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = hyper::header::HeaderName::from_bytes(&line[..colon]).ok()?;
        Some((name, hyper::header::HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
    });
    let mut headers = hyper::HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name, value);
    }
    headers
}
