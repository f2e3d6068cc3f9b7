//! Addresses: where a redirect leads, and what may be sent along.

use hyper::Uri;
use hyper::http::uri::PathAndQuery;

/// Where a `Location` leads that an address gave; nothing when it is none that can be followed.
pub fn follow(from: &Uri, location: &str) -> Option<Uri> {
    // `//:/x` has an authority, and no host in it.
    resolve(from, location).filter(|to| to.host().is_some_and(|host| !host.is_empty()))
}

fn resolve(from: &Uri, location: &str) -> Option<Uri> {
    let target: Uri = location.parse().ok()?;
    if target.scheme().is_some() {
        return (target.authority().is_some() && is_http(&target)).then_some(target);
    }
    let path = match location.strip_prefix("//") {
        // Another host under the same scheme.
        Some(rest) => return format!("{}://{rest}", from.scheme_str()?).parse().ok(),
        None if location.starts_with('/') => location.parse::<PathAndQuery>().ok()?,
        None => return None,
    };
    let mut parts = from.clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).ok()
}

fn is_http(address: &Uri) -> bool {
    matches!(address.scheme_str(), Some("http" | "https"))
}

/// Whether two addresses belong to the same server: only then may one see the other's credentials.
pub fn same_server(one: &Uri, other: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().or(Some(if uri.scheme_str() == Some("https") { 443 } else { 80 }));
    let host = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    one.scheme_str() == other.scheme_str() && host(one) == host(other) && port(one) == port(other)
}

/// A query's text with everything escaped that could end or change it (RFC 3986, 2.3).
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn redirects() {
        let from: Uri = "https://registry.example:5000/v2/a/blobs/x?y".parse().unwrap();
        for (location, leads) in [
            ("https://cdn.example/x?sig=%2F", Some("https://cdn.example/x?sig=%2F")),
            ("/elsewhere?z=1", Some("https://registry.example:5000/elsewhere?z=1")),
            ("//cdn.example/x", Some("https://cdn.example/x")),
            ("elsewhere", None),
            ("ftp://cdn.example/x", None),
            ("", None),
            ("file:///etc/passwd", None),
            ("//:/x", None),
            ("http://:80/x", None),
        ] {
            let found = follow(&from, location).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), leads, "{location}");
        }
    }

    #[test]
    fn servers() {
        let same = |a: &str, b: &str| same_server(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(same("https://A.example/x", "https://a.example:443/y"));
        assert!(!same("https://a.example", "http://a.example"));
        assert!(!same("https://a.example", "https://a.example:444"));
        assert!(!same("https://a.example", "https://b.a.example"));
    }

    proptest! {
        #[test]
        fn any_location_is_taken_or_left(text in "[a-z:/?#@.%\\[\\] ä]{0,40}") {
            let from: Uri = "http://a.example/v2/".parse().unwrap();
            if let Some(uri) = follow(&from, &text) {
                prop_assert!(uri.host().is_some());
            }
        }

        #[test]
        fn what_is_escaped_is_one_word(text in any::<String>()) {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['&', '=', '#', '?', '+', ' ']) && escaped.is_ascii());
        }
    }
}
