//! A request's head as a program's variables. An input is a path with its query, a line's end, and headers, one a line.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;

use hyper::Request;

use crate::environment::{Variable, classic, of};

pub fn check(data: &[u8]) {
    let (uri, rest) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let Ok(request) = Request::builder().uri(uri).body(()) else { return };
    let (mut parts, ()) = request.into_parts();
    parts.headers = super::headers(rest);
    let path = decoded(parts.uri.path());
    let Some(variables) = of(&parts) else { return assert_eq!(path, None) };
    let variables_of = |variables: &[Variable], name: &str| -> Vec<Vec<u8>> {
        variables
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.as_bytes().to_vec())
            .collect()
    };
    // The request line is what it is, and no header stands in for it.
    assert_eq!(variables_of(&variables, "Http_Path"), [path.expect("an encoded path")]);
    assert_eq!(variables_of(&variables, "Http_Method"), [b"GET"]);
    let query: Vec<_> = parts.uri.query().map(|query| query.as_bytes().to_vec()).into_iter().collect();
    assert_eq!(variables_of(&variables, "Http_Query"), query);
    let odd = parts.headers.keys().any(|name| name.as_str().contains('_'));
    passable(&variables, odd);
    let classic = classic(&parts, Some(7)).expect("the same path");
    passable(&classic, odd);
    for name in ["Http_Content_Length", "Http_ContentLength"] {
        assert_eq!(variables_of(&classic, name), [b"7"]);
    }
}

/// execve(2) takes them, each name once. (`x_-y` and `x--y` become one variable, which has the later one's value.)
fn passable(variables: &[Variable], odd: bool) {
    let names: BTreeSet<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
    assert!(odd || names.len() == variables.len(), "{names:?}");
    for (name, value) in variables {
        assert!(name.starts_with("Http_") && !name.contains(['=', '\0']) && !value.as_bytes().contains(&0));
    }
}

/// Every percent sign with two hex digits behind it, and no zero byte.
fn decoded(path: &str) -> Option<Vec<u8>> {
    let mut parts = path.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|two| two.chars().all(|digit| digit.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    (!bytes.contains(&0)).then_some(bytes)
}
