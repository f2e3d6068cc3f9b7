//! Where a caller wants the answer of an asynchronous call to be sent. Whether it may be sent there is the worker's business,
//! who does it.

use hyper::{HeaderMap, Uri};

/// Names the place.
const CALLBACK: &str = "x-callback-url";

/// The place, if there is to be one.
///
/// # Errors
/// It is none; in words for the caller.
pub fn callback(headers: &HeaderMap) -> Result<Option<String>, String> {
    let Some(value) = headers.get(CALLBACK) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let parsed: Option<Uri> = text.parse().ok();
    let fits = parsed.is_some_and(|uri| {
        let host = uri.host().unwrap_or_default();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let behind =
            authority.rsplit('@').next().and_then(|place| place.strip_prefix(host)).unwrap_or_default();
        // A port that is none is not the scheme's own.
        let port = behind.is_empty() || uri.port_u16().is_some_and(|port| port > 0);
        matches!(uri.scheme_str(), Some("http" | "https")) && !host.is_empty() && port
    });
    if !fits {
        return Err(format!(
            "X-Callback-Url: {text:?} is no URL with http or https, a host and perhaps a port, expected something like \
             http://gateway:8080/function/next"
        ));
    }
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn callbacks() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CALLBACK, HeaderValue::from_static(text));
            callback(&headers)
        };
        assert_eq!(callback(&HeaderMap::new()), Ok(None));
        for good in [
            "http://gateway:8080/function/next",
            "https://example.org/a?b=c",
            " http://10.0.0.1 ",
            "http://[::1]:80/",
            "http://u:p@a:8/",
        ] {
            assert_eq!(read(good), Ok(Some(good.trim().to_owned())));
        }
        for bad in [
            "",
            "next",
            "/function/next",
            "ftp://example.org/",
            "http://",
            "http:///x",
            "a b",
            "http://a:99999/",
            "http://a:0/",
            "http://a:/",
        ] {
            assert!(read(bad).unwrap_err().starts_with("X-Callback-Url: "), "{bad}");
        }
    }
}
