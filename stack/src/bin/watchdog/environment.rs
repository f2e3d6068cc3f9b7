//! A request's head as the program's environment.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use hyper::header::{CONTENT_LENGTH, COOKIE, HeaderName, HeaderValue};
use hyper::http::request::Parts;

use crate::percent;

/// A variable's name and value.
pub type Variable = (String, OsString);

/// The variables of a request; nothing when its path is not encoded correctly.
pub fn of(parts: &Parts) -> Option<Vec<Variable>> {
    let mut variables: Vec<Variable> = Vec::with_capacity(parts.headers.keys_len() + 3);
    for name in parts.headers.keys() {
        // These names are the request line's. A header cannot stand in for it.
        if !matches!(name.as_str(), "method" | "path" | "query") {
            let between: &[u8] = if name == COOKIE { b"; " } else { b", " };
            let values: Vec<_> = parts.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
            variables.push((variable(name), OsString::from_vec(values.join(between))));
        }
    }
    variables.push(("Http_Method".to_owned(), parts.method.as_str().into()));
    variables.push(("Http_Path".to_owned(), OsString::from_vec(percent::decode(parts.uri.path())?)));
    if let Some(query) = parts.uri.query() {
        variables.push(("Http_Query".to_owned(), query.into()));
    }
    Some(variables)
}

/// The same with what the classic watchdog tells too. A length that is not known beforehand is told as -1.
pub fn classic(parts: &Parts, length: Option<u64>) -> Option<Vec<Variable>> {
    let mut variables = of(parts)?;
    let length = length.map_or_else(|| "-1".to_owned(), |length| length.to_string());
    variables.retain(|(name, _)| *name != variable(&CONTENT_LENGTH));
    variables.push((variable(&CONTENT_LENGTH), length.clone().into()));
    variables.push(("Http_ContentLength".to_owned(), length.into()));
    Some(variables)
}

/// `x-call-id` becomes `Http_X_Call_Id`.
fn variable(name: &HeaderName) -> String {
    let mut variable = String::from("Http");
    for word in name.as_str().split('-') {
        variable.push('_');
        let mut letters = word.chars();
        variable.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        variable.push_str(letters.as_str());
    }
    variable
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn get<'a>(variables: &'a [Variable], name: &str) -> Vec<&'a [u8]> {
        use std::os::unix::ffi::OsStrExt;
        variables.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_bytes()).collect()
    }

    #[test]
    fn cgi() {
        let request = Request::builder()
            .method("PUT")
            .uri("/a%20b?c=d%20e")
            .header("x-call-id", "7")
            .header("accept", "a")
            .header("accept", "b")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("path", "/else")
            .header("content-length", "5")
            .header("x-bytes", HeaderValue::from_bytes(b"\xff").unwrap());
        let parts = request.body(()).unwrap().into_parts().0;
        let variables = of(&parts).unwrap();
        for (name, value) in [
            ("Http_X_Call_Id", &b"7"[..]),
            ("Http_Accept", b"a, b"),
            ("Http_Cookie", b"a=1; b=2"),
            ("Http_X_Bytes", b"\xff"),
            ("Http_Method", b"PUT"),
            ("Http_Query", b"c=d%20e"),
            ("Http_Path", b"/a b"),
            ("Http_Content_Length", b"5"),
        ] {
            assert_eq!(get(&variables, name), [value], "{name}");
        }
        let variables = classic(&parts, None).unwrap();
        assert_eq!(get(&variables, "Http_Content_Length"), [b"-1"]);
        assert_eq!(get(&variables, "Http_ContentLength"), [b"-1"]);
    }

    #[test]
    fn a_header_cannot_fake_the_request_line() {
        let request = Request::builder().uri("/").header("query", "a").header("method", "b");
        let variables = of(&request.body(()).unwrap().into_parts().0).unwrap();
        assert_eq!(get(&variables, "Http_Method"), [b"GET"]);
        assert!(get(&variables, "Http_Query").is_empty());
        let request = Request::builder().uri("/%zz").body(()).unwrap();
        assert!(of(&request.into_parts().0).is_none());
    }
}
