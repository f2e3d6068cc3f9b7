//! Which path is what. A pure function of method and path.

use hyper::{Method, StatusCode};

/// What is to be done with what a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// GET
    Read,
    /// POST
    Create,
    /// PUT
    Replace,
    /// DELETE
    Remove,
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// GET /healthz
    Health,
    /// GET /system/info
    Info,
    /// GET /system/functions
    List,
    /// POST /system/functions
    Create,
    /// PUT /system/functions
    Update,
    /// DELETE /system/functions
    Delete,
    /// GET /system/function/NAME
    Describe(&'a str),
    /// POST /system/scale-function/NAME
    Scale(&'a str),
    /// GET /system/namespaces
    Namespaces,
    /// Any act on /system/namespace/NAME, where the name may be empty.
    Namespace(Act, &'a str),
    /// Any act on /system/secrets
    Secrets(Act),
    /// GET /system/logs
    Logs,
    /// POST /system/alert
    Alert,
    /// POST /system/machine
    Machine,
    /// Any method of a function, /function/NAME and below: the name as written, and the raw path behind it.
    Invoke(&'a str, &'a str),
    /// The same for /async-function/NAME: the call is made later.
    Enqueue(&'a str, &'a str),
    /// GET or DELETE /system/calls/CALL-ID, with the identifier as the path has it.
    Call(Act, &'a str),
    /// GET /system/dead-letters
    DeadLetters,
    /// GET or DELETE /system/dead-letters/NUMBER
    DeadLetter(Act, u64),
    /// POST /system/dead-letters/NUMBER/replay
    Replay(u64),
    /// GET /
    Root,
    /// GET /ui/
    Page,
    /// The path is not clean: go there instead.
    Clean(String),
    /// 404 or 405.
    Nothing(StatusCode),
}

impl Route<'_> {
    /// Whether only the administrator may go there.
    pub fn is_guarded(&self, path: &str) -> bool {
        match self {
            Self::Health | Self::Invoke(..) | Self::Enqueue(..) | Self::Root | Self::Clean(_) => false,
            // What lies below /system is nobody else's business, existing or not.
            Self::Nothing(_) => path.starts_with("/system/"),
            _ => true,
        }
    }
}

/// The page for people, and what some write for it.
pub const PAGE: &str = "/ui/";
const PAGE_NAME: &str = "/ui";

/// Finds the route.
pub fn route<'a>(method: &Method, path: &'a str) -> Route<'a> {
    // A function's own path belongs to the function, byte for byte.
    if let Some((name, rest)) = path.strip_prefix("/function/").and_then(split_name) {
        return invocation(method, Route::Invoke(name, rest));
    }
    if let Some((name, rest)) = path.strip_prefix("/async-function/").and_then(split_name) {
        return invocation(method, Route::Enqueue(name, rest));
    }
    let clean = cleaned(path);
    if clean.as_deref().unwrap_or(path) == PAGE_NAME {
        return Route::Clean(PAGE.to_owned());
    }
    if let Some(clean) = clean {
        return Route::Clean(clean);
    }
    let only = |wanted: Method, found: Route<'a>| if *method == wanted { found } else { refused() };
    match path {
        "/" => only(Method::GET, Route::Root),
        PAGE => only(Method::GET, Route::Page),
        "/healthz" => only(Method::GET, Route::Health),
        "/system/info" => only(Method::GET, Route::Info),
        "/system/logs" => only(Method::GET, Route::Logs),
        "/system/machine" => only(Method::POST, Route::Machine),
        "/system/namespaces" => only(Method::GET, Route::Namespaces),
        "/system/secrets" => act(method).map_or_else(refused, Route::Secrets),
        "/system/alert" => only(Method::POST, Route::Alert),
        "/system/dead-letters" => only(Method::GET, Route::DeadLetters),
        "/system/functions" => match *method {
            Method::GET => Route::List,
            Method::POST => Route::Create,
            Method::PUT => Route::Update,
            Method::DELETE => Route::Delete,
            _ => refused(),
        },
        _ => {
            if let Some(name) = path.strip_prefix("/system/function/").filter(|name| is_name(name)) {
                only(Method::GET, Route::Describe(name))
            } else if let Some(name) =
                path.strip_prefix("/system/scale-function/").filter(|name| is_name(name))
            {
                only(Method::POST, Route::Scale(name))
            } else if let Some(id) = path.strip_prefix("/system/calls/").filter(|id| !id.is_empty()) {
                match act(method) {
                    Some(act @ (Act::Read | Act::Remove)) => Route::Call(act, id),
                    _ => refused(),
                }
            } else if let Some(rest) = path.strip_prefix("/system/dead-letters/") {
                dead_letter(method, rest)
            } else if let Some(name) = namespace(path, "/system/namespace/") {
                act(method).map_or_else(refused, |act| Route::Namespace(act, name))
            } else if let Some(name) = namespace(path, "/system/namespaces/").filter(|name| !name.is_empty())
            {
                // A form of OpenFaaS's documentation.
                match act(method) {
                    Some(act @ (Act::Replace | Act::Remove)) => Route::Namespace(act, name),
                    _ => refused(),
                }
            } else {
                Route::Nothing(StatusCode::NOT_FOUND)
            }
        }
    }
}

/// Finds the route of what is for a function whatever its path is.
pub fn route_to<'a>(name: &'a str, method: &Method, path: &'a str) -> Route<'a> {
    // `OPTIONS *` and CONNECT have no path; they ask for the server itself.
    if path.starts_with('/') { invocation(method, Route::Invoke(name, path)) } else { route(method, path) }
}

fn invocation<'a>(method: &Method, call: Route<'a>) -> Route<'a> {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::PATCH
        | Method::DELETE
        | Method::OPTIONS => call,
        _ => refused(),
    }
}

/// What is behind `/system/dead-letters/`.
fn dead_letter<'a>(method: &Method, rest: &str) -> Route<'a> {
    let (number, replay) = rest.strip_suffix("/replay").map_or((rest, false), |number| (number, true));
    let Ok(number) = number.parse() else { return Route::Nothing(StatusCode::NOT_FOUND) };
    match (act(method), replay) {
        (Some(act @ (Act::Read | Act::Remove)), false) => Route::DeadLetter(act, number),
        (Some(Act::Create), true) => Route::Replay(number),
        _ => refused(),
    }
}

fn refused<'a>() -> Route<'a> {
    Route::Nothing(StatusCode::METHOD_NOT_ALLOWED)
}

fn act(method: &Method) -> Option<Act> {
    match *method {
        Method::GET => Some(Act::Read),
        Method::POST => Some(Act::Create),
        Method::PUT => Some(Act::Replace),
        Method::DELETE => Some(Act::Remove),
        _ => None,
    }
}

/// The name of a namespace's path, which may be empty.
fn namespace<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|name| name.is_empty() || is_name(name))
}

/// The characters of functions and namespaces in paths.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Splits `NAME/rest` into the name and `/rest`.
fn split_name(text: &str) -> Option<(&str, &str)> {
    let end = text.find('/').unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end)?;
    is_name(name).then_some((name, rest))
}

/// The path without empty, `.` and `..` parts, where it has some.
fn cleaned(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let last = parts.len().saturating_sub(1);
    let odd = |(at, part): (usize, &&str)| *part == "." || *part == ".." || (part.is_empty() && at != last);
    if path.starts_with('/') && !parts.iter().enumerate().any(odd) {
        return None;
    }
    let mut clean: Vec<&str> = Vec::new();
    for part in &parts {
        match *part {
            "" | "." => {}
            ".." => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    let slash = if clean.is_empty() || !path.ends_with('/') { "" } else { "/" };
    Some(format!("/{}{slash}", clean.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table() {
        let not_found = || Route::Nothing(StatusCode::NOT_FOUND);
        let not_allowed = || Route::Nothing(StatusCode::METHOD_NOT_ALLOWED);
        for (method, path, wanted) in [
            (Method::GET, "/", Route::Root),
            (Method::POST, "/", not_allowed()),
            (Method::GET, "/ui/", Route::Page),
            (Method::POST, "/ui/", not_allowed()),
            (Method::GET, "/ui", Route::Clean("/ui/".into())),
            (Method::GET, "//x/../ui", Route::Clean("/ui/".into())),
            (Method::GET, "/ui/x", not_found()),
            (Method::GET, "/healthz", Route::Health),
            (Method::POST, "/healthz", not_allowed()),
            (Method::GET, "/system/info", Route::Info),
            (Method::GET, "/system/functions", Route::List),
            (Method::POST, "/system/functions", Route::Create),
            (Method::PUT, "/system/functions", Route::Update),
            (Method::DELETE, "/system/functions", Route::Delete),
            (Method::PATCH, "/system/functions", not_allowed()),
            (Method::GET, "/system/function/figlet", Route::Describe("figlet")),
            (Method::POST, "/system/function/figlet", not_allowed()),
            (Method::GET, "/system/function/", not_found()),
            (Method::GET, "/system/function/a/b", not_found()),
            (Method::POST, "/system/scale-function/f", Route::Scale("f")),
            (Method::GET, "/system/namespaces", Route::Namespaces),
            (Method::GET, "/system/namespace/", Route::Namespace(Act::Read, "")),
            (Method::POST, "/system/namespace/", Route::Namespace(Act::Create, "")),
            (Method::GET, "/system/namespace/dev", Route::Namespace(Act::Read, "dev")),
            (Method::POST, "/system/namespace/dev", Route::Namespace(Act::Create, "dev")),
            (Method::PUT, "/system/namespace/dev", Route::Namespace(Act::Replace, "dev")),
            (Method::DELETE, "/system/namespace/k8s.io", Route::Namespace(Act::Remove, "k8s.io")),
            (Method::PATCH, "/system/namespace/dev", not_allowed()),
            (Method::GET, "/system/namespace/a/b", not_found()),
            (Method::GET, "/system/namespace/a%2Fb", not_found()),
            (Method::GET, "/system/namespace", not_found()),
            (Method::PUT, "/system/namespaces/dev", Route::Namespace(Act::Replace, "dev")),
            (Method::DELETE, "/system/namespaces/dev", Route::Namespace(Act::Remove, "dev")),
            (Method::GET, "/system/namespaces/dev", not_allowed()),
            (Method::DELETE, "/system/namespaces/", not_found()),
            (Method::POST, "/system/namespaces", not_allowed()),
            (Method::GET, "/system/secrets", Route::Secrets(Act::Read)),
            (Method::POST, "/system/secrets", Route::Secrets(Act::Create)),
            (Method::PUT, "/system/secrets", Route::Secrets(Act::Replace)),
            (Method::DELETE, "/system/secrets", Route::Secrets(Act::Remove)),
            (Method::PATCH, "/system/secrets", not_allowed()),
            (Method::GET, "/system/secrets/a", not_found()),
            (Method::GET, "/system/logs", Route::Logs),
            (Method::POST, "/system/logs", not_allowed()),
            (Method::POST, "/system/alert", Route::Alert),
            (Method::GET, "/system/alert", not_allowed()),
            (Method::GET, "/system/telemetry", not_found()),
            (Method::POST, "/system/machine", Route::Machine),
            (Method::GET, "/system/machine", not_allowed()),
            (Method::GET, "/metrics", not_found()),
            (Method::POST, "/async-function/f", Route::Enqueue("f", "")),
            (Method::GET, "/async-function/f.dev/a//b/../%2F", Route::Enqueue("f.dev", "/a//b/../%2F")),
            (Method::TRACE, "/async-function/f", not_allowed()),
            (Method::POST, "/async-function/", not_found()),
            (Method::GET, "/system/calls/a%2Fb", Route::Call(Act::Read, "a%2Fb")),
            (Method::DELETE, "/system/calls/1", Route::Call(Act::Remove, "1")),
            (Method::POST, "/system/calls/1", not_allowed()),
            (Method::GET, "/system/calls/", not_found()),
            (Method::GET, "/system/dead-letters", Route::DeadLetters),
            (Method::DELETE, "/system/dead-letters", not_allowed()),
            (Method::GET, "/system/dead-letters/7", Route::DeadLetter(Act::Read, 7)),
            (Method::DELETE, "/system/dead-letters/7", Route::DeadLetter(Act::Remove, 7)),
            (Method::POST, "/system/dead-letters/7/replay", Route::Replay(7)),
            (Method::GET, "/system/dead-letters/7/replay", not_allowed()),
            (Method::POST, "/system/dead-letters/7", not_allowed()),
            (Method::GET, "/system/dead-letters/x", not_found()),
            (Method::POST, "/function/f", Route::Invoke("f", "")),
            (Method::POST, "/function/f.dev/", Route::Invoke("f.dev", "/")),
            (Method::GET, "/function/f/a//b/../%2F", Route::Invoke("f", "/a//b/../%2F")),
            (Method::TRACE, "/function/f", not_allowed()),
            (Method::CONNECT, "/function/f", not_allowed()),
            (Method::GET, "/function/", not_found()),
            (Method::GET, "/function/%41", not_found()),
            (Method::GET, "/system//info", Route::Clean("/system/info".into())),
            (Method::GET, "/../system/functions/", Route::Clean("/system/functions/".into())),
            (Method::GET, "//", Route::Clean("/".into())),
        ] {
            assert_eq!(route(&method, path), wanted, "{method} {path}");
        }
    }

    #[test]
    fn a_function_that_was_called_by_name_has_all_paths() {
        for path in ["/", "/system/functions", "/healthz", "/function/other", "/a//b/../%2F"] {
            assert_eq!(route_to("f.dev", &Method::GET, path), Route::Invoke("f.dev", path));
            assert_eq!(route_to("f", &Method::TRACE, path), Route::Nothing(StatusCode::METHOD_NOT_ALLOWED));
        }
        for (method, path) in [(Method::OPTIONS, "*"), (Method::CONNECT, "")] {
            assert_eq!(route_to("f", &method, path), route(&method, path));
        }
    }

    #[test]
    fn guarded() {
        for (path, wanted) in [
            ("/system/functions", true),
            ("/ui/", true),
            ("/system/logs", true),
            ("/system/calls/1", true),
            ("/system/dead-letters", true),
            ("/async-function/f", false),
            ("/system/machine", true),
            ("/system/secrets", true),
            ("/system/namespaces", true),
            ("/system/namespace/dev", true),
            ("/system/telemetry", true),
            ("/system/x", true),
            ("/healthz", false),
            ("/x", false),
        ] {
            assert_eq!(route(&Method::GET, path).is_guarded(path), wanted, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_clean_path_is_clean(path in "/[a-z./]{0,30}") {
            if let Some(clean) = cleaned(&path) {
                prop_assert_eq!(cleaned(&clean), None);
            }
        }

        #[test]
        fn never_panics(path in ".{0,40}") {
            let _ = route(&Method::GET, &path);
        }
    }
}
