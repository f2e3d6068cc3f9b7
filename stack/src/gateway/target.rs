//! Where a call goes.

use std::net::SocketAddr;

use hyper::Uri;

/// The address of a call in a function: the raw path and query go on as they are; nothing where they cannot.
pub fn target(address: SocketAddr, rest: &str, query: Option<&str>) -> Option<Uri> {
    let path = if rest.is_empty() { "/" } else { rest };
    let path = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    Uri::builder().scheme("http").authority(address.to_string()).path_and_query(path).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_keep_the_raw_path() {
        let address = ([10, 62, 0, 2], 8080).into();
        for (rest, query, wanted) in [
            ("", None, "http://10.62.0.2:8080/"),
            ("/", Some(""), "http://10.62.0.2:8080/?"),
            ("/a%2Fb//c", Some("x=%20"), "http://10.62.0.2:8080/a%2Fb//c?x=%20"),
        ] {
            assert_eq!(target(address, rest, query).unwrap().to_string(), wanted);
        }
    }
}
