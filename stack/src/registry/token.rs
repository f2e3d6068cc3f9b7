//! A token for a repository, from the server that a registry names (Docker's token and OAuth2 specifications).

use std::path::Path;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use serde::Deserialize;

use super::challenge::Challenge;
use super::client::Client;
use super::credentials::Credentials;
use super::location::escape;
use super::said::said;
use crate::error::{Result, Trouble};
use crate::object::Object;

/// How we call ourselves where a client has to have a name.
const CLIENT: &str = "bothy";

/// Largest answer that is read, in bytes.
const LARGEST: usize = 1 << 20;

/// Who we are, as far as we know.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// What is shown to the registry.
    pub credentials: Option<&'a Credentials>,
    /// The file that it is of, or would be.
    pub file: &'a Path,
}

/// An answer's part that we need; both names are in use.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// Gets a token that may read a repository. `plain` is whether the token's server may be spoken to in plain HTTP.
pub async fn get(
    client: &Client,
    challenge: &Challenge,
    repository: &str,
    login: Login<'_>,
    plain: bool,
) -> Result<HeaderValue> {
    let act = format!("ask for a token for {repository}");
    let wrong = |reason: String| client.error(&act, Trouble::Wrong, reason);
    let realm = challenge.get("realm").unwrap_or_default();
    let shown = said(realm.split('?').next().unwrap_or_default());
    let server: Uri =
        realm.parse().map_err(|_| wrong(format!("{shown:?} is no address of a token server")))?;
    if !(server.scheme_str() == Some("https") || plain && server.scheme_str() == Some("http")) {
        return Err(wrong(format!("{shown:?} is not an address that starts with https://")));
    }
    let own = format!("repository:{repository}:pull");
    let scope = challenge.get("scope").unwrap_or(&own);
    let mut query = format!("scope={}", escape(scope));
    if let Some(service) = challenge.get("service") {
        query.push_str(&format!("&service={}", escape(service)));
    }
    let request = match login.credentials {
        Some(Credentials::Refresh(token)) => {
            query.push_str(&format!(
                "&grant_type=refresh_token&client_id={CLIENT}&refresh_token={}",
                escape(token)
            ));
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            Request::builder().method(Method::POST).uri(realm).header(CONTENT_TYPE, form).body(query.into())
        }
        other => {
            let joint = if realm.contains('?') { '&' } else { '?' };
            let mut request = Request::builder().uri(format!("{realm}{joint}{query}"));
            if let Some(basic) = other.and_then(Credentials::basic) {
                request = request.header(AUTHORIZATION, basic);
            }
            request.body(Full::<Bytes>::default())
        }
    };
    let request = request.map_err(|error| wrong(format!("{shown:?}: {error}")))?;
    let response = client.ask(&act, request).await?;
    let host = said(server.host().unwrap_or_default());
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
            return Err(client.error(&act, Trouble::Refused, login.refused(&host)));
        }
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            return Err(client.error(&act, Trouble::Away, format!("{host} answered {status}")));
        }
        status => return Err(client.error(&act, Trouble::Refused, format!("{host} answered {status}"))),
    }
    let bytes = client.whole(&act, response.into_body(), LARGEST).await?;
    // Not the parser's words: they may quote the token.
    let Object(answer): Object<Answer> =
        serde_json::from_slice(&bytes).map_err(|_| wrong(format!("{host} gave no token")))?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    let mut value: HeaderValue = format!("Bearer {token}")
        .parse()
        .ok()
        .filter(|_| !token.is_empty())
        .ok_or_else(|| wrong(format!("{host} gave no token")))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Login<'_> {
    /// What it means that a server does not take us for who we say to be.
    pub fn refused(self, host: &str) -> String {
        let file = self.file.display();
        match self.credentials {
            Some(Credentials::Password { user, .. }) => {
                format!("{host} does not take the user {user:?} with the password of {file}")
            }
            Some(Credentials::Refresh(_)) => format!("{host} does not take the identity token of {file}"),
            None => format!(
                "{host} wants a user and a password, and {file} has none for it (see `docker login`); or there is no such \
                 image"
            ),
        }
    }

    /// What it means that we are known and get nothing.
    pub fn denied(self, host: &str) -> String {
        match self.credentials {
            Some(Credentials::Password { user, .. }) => {
                format!("there is no such image, or the user {user:?} may not pull it")
            }
            Some(Credentials::Refresh(_)) => {
                "there is no such image, or the owner of the identity token may not pull it".to_owned()
            }
            None => self.refused(host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_may_be_wrong() {
        let known = Credentials::Password { user: "farmer".into(), password: "s3cret".into() };
        let file = Path::new("/boot/docker.json");
        let (known, nobody) = (Login { credentials: Some(&known), file }, Login { credentials: None, file });
        for (text, words) in [
            (known.refused("a"), ["\"farmer\"", "/boot/docker.json"]),
            (known.denied("a"), ["no such image", "\"farmer\" may not pull it"]),
            (nobody.refused("a"), ["/boot/docker.json has none", "or there is no such image"]),
            (nobody.denied("a"), ["/boot/docker.json has none", "or there is no such image"]),
        ] {
            assert!(words.iter().all(|word| text.contains(word)) && !text.contains("s3cret"), "{text}");
        }
    }
}
