//! The way of a request by its path. An input is a method and a path with its query: `GET /function/f.dev/a?b`.

use std::path::{Component, Path};

use hyper::header::HeaderValue;
use hyper::{Method, Uri};

use crate::gateway::router::{Act, Route, route};
use crate::gateway::target::target;
use crate::key::Key;

pub fn check(data: &[u8]) {
    let Some((method, uri)) = request(data) else { return };
    let path = uri.path();
    let found = route(&method, path);
    let open = matches!(
        found,
        Route::Health
            | Route::Root
            | Route::Invoke(..)
            | Route::Enqueue(..)
            | Route::Clean(_)
            | Route::Nothing(_)
    );
    // What is the administrator's is one page, and lies below one folder else; all of that folder is.
    let below = path.starts_with("/system/") && !matches!(found, Route::Clean(_));
    assert!(open || below || found == Route::Page && path == "/ui/");
    assert_eq!(found.is_guarded(path), below || found == Route::Page);
    match found {
        Route::Invoke(name, rest) => invoked(&uri, "function", name, rest),
        Route::Enqueue(name, rest) => invoked(&uri, "async-function", name, rest),
        Route::Call(act, id) => {
            assert!(matches!(act, Act::Read | Act::Remove) && !id.is_empty());
            assert_eq!(format!("/system/calls/{id}"), path);
        }
        Route::DeadLetter(act, number) => {
            assert!(matches!(act, Act::Read | Act::Remove));
            assert!(path.rsplit('/').next().is_some_and(|last| last.parse() == Ok(number)));
        }
        Route::Replay(number) => {
            assert_eq!((&method, path.rsplit('/').next()), (&Method::POST, Some("replay")));
            assert!(path.rsplit('/').nth(1).is_some_and(|last| last.parse() == Ok(number)));
        }
        Route::Clean(to) => {
            // `OPTIONS *` has no path.
            let clean = cleaned(path.strip_prefix('*').unwrap_or(path));
            assert_eq!(to, if clean == "/ui" { "/ui/".to_owned() } else { clean });
            assert_ne!(to, path);
            // It leads to this machine, in one step.
            assert!(to.starts_with('/') && !to.starts_with("//") && HeaderValue::try_from(&to).is_ok());
            assert!(!matches!(route(&method, &to), Route::Clean(_)));
        }
        Route::Describe(name) | Route::Scale(name) => assert!(is_last(name, path) && !name.is_empty()),
        Route::Namespace(_, name) => assert!(is_last(name, path)),
        _ => {}
    }
}

fn request(data: &[u8]) -> Option<(Method, Uri)> {
    let (method, uri) = str::from_utf8(data).ok()?.split_once(' ')?;
    Some((method.parse().ok()?, uri.parse().ok()?))
}

fn invoked(uri: &Uri, folder: &str, name: &str, rest: &str) {
    assert_eq!(format!("/{folder}/{name}{rest}"), uri.path());
    assert!(!name.is_empty() && !name.contains(['/', '%']) && (rest.is_empty() || rest.starts_with('/')));
    if let Some(key) = Key::from_path(name) {
        assert_eq!(Key::from_path(&key.to_string()), Some(key));
    }
    // The function gets the path and the query byte for byte, and nothing of them leads to somebody else.
    let goes = target(rest, uri.query()).expect("what came in goes on");
    assert!(goes.scheme().is_none() && goes.authority().is_none());
    assert_eq!((goes.path(), goes.query()), (if rest.is_empty() { "/" } else { rest }, uri.query()));
}

fn is_last(name: &str, path: &str) -> bool {
    path.rsplit('/').next() == Some(name)
}

/// The same by the standard library's paths.
fn cleaned(path: &str) -> String {
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str().unwrap()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    let slash = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("/{}{slash}", parts.join("/"))
}
