//! Basic auth at the gateway's door. An input is the header's value.

use std::fs;
use std::sync::LazyLock;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};

use crate::gateway::auth::Credentials;

const PAIR: &str = "admin:s3cret:x";

static DOOR: LazyLock<Credentials> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder of our own");
    let (user, password) = PAIR.split_once(':').unwrap();
    fs::write(folder.path().join("basic-auth-user"), user).unwrap();
    fs::write(folder.path().join("basic-auth-password"), password).unwrap();
    Credentials::read(folder.path()).unwrap()
});

pub fn check(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
    let text = String::from_utf8_lossy(data);
    let scheme = text.get(..6).unwrap_or_default();
    let said = text.get(6..).unwrap_or_default();
    let knows = scheme.eq_ignore_ascii_case("basic ")
        && super::base64(said.trim_ascii().as_bytes()).as_deref() == Some(PAIR.as_bytes());
    assert_eq!(DOOR.admit(&headers), knows, "{text}");
}
