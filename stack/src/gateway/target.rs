//! Where a call goes.

use hyper::Uri;

/// What a call asks its function for: the raw path and query go on as they are; nothing where they cannot.
pub fn target(rest: &str, query: Option<&str>) -> Option<Uri> {
    let path = if rest.is_empty() { "/" } else { rest };
    let path = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    Uri::builder().path_and_query(path).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_keep_the_raw_path() {
        for (rest, query, wanted) in
            [("", None, "/"), ("/", Some(""), "/?"), ("/a%2Fb//c", Some("x=%20"), "/a%2Fb//c?x=%20")]
        {
            assert_eq!(target(rest, query).unwrap().to_string(), wanted);
        }
    }
}
