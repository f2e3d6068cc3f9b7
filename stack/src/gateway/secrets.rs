//! `/system/secrets`. Values come in and never go out: not in an answer, not in an error, not in the journal.

use std::borrow::Cow;

use bytes::Buf;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use provisioning::{Namespace, Provider};
use serde::{Deserialize, Serialize};

use super::Gateway;
use super::reply::{Refusal, empty, json, refuse};
use super::router::Act;
use super::system::{Answer, bad_request, named, namespace_not_valid, or_query, parameter, read};
use super::wire::nullable;
use crate::base64;
use crate::desired::{LARGEST_SECRET_BYTES, SecretName, on_disk};
use crate::error::Error;

/// Body of POST, PUT and DELETE. It has no Debug: the value must not be printed by accident.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Submitted {
    #[serde(deserialize_with = "nullable")]
    name: String,
    #[serde(deserialize_with = "nullable")]
    namespace: String,
    #[serde(deserialize_with = "nullable")]
    value: String,
    #[serde(deserialize_with = "nullable")]
    raw_value: String,
}

impl Submitted {
    /// The value's bytes: `rawValue`, which is base64, before `value`.
    fn value(&self) -> Result<Cow<'_, [u8]>, Refusal> {
        if self.raw_value.is_empty() {
            return Ok(Cow::Borrowed(self.value.as_bytes()));
        }
        // Tools that write base64 fold it.
        let text: Vec<u8> = self.raw_value.bytes().filter(|b| !matches!(b, b'\n' | b'\r')).collect();
        base64::decode(&text).map(Cow::Owned).ok_or_else(|| bad_request("rawValue is not base64"))
    }
}

/// One of the list.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    namespace: &'a str,
}

impl Gateway {
    /// Lists, makes, changes or removes secrets.
    pub async fn secrets(&self, request: Request<Incoming>, act: Act) -> Answer {
        let query = request.uri().query().map(str::to_owned);
        let query = query.as_deref();
        if act == Act::Read {
            return self.list_secrets(&parameter(query, "namespace")).await;
        }
        let bytes = read(request).await?;
        // Who removes something may have said all in the query.
        let submitted = if act == Act::Remove && !bytes.has_remaining() {
            Submitted::default()
        } else {
            // serde's own text may quote what it found.
            serde_json::from_reader(bytes.reader()).map_err(|error| {
                let place = format!("line {}, column {}", error.line(), error.column());
                bad_request(format!("error parsing request body: it is no secret in JSON ({place})"))
            })?
        };
        let name = if submitted.name.is_empty() { &parameter(query, "name") } else { &submitted.name };
        let name: SecretName = name.parse().map_err(|bad| bad_request(format!("{bad}")))?;
        let namespace = or_query(submitted.namespace.clone(), query);
        let namespace = named(&namespace).ok_or_else(namespace_not_valid)?;
        match act {
            Act::Remove => self.remove_secret(&namespace, &name).await,
            act => {
                let value = submitted.value()?;
                if value.len() > LARGEST_SECRET_BYTES {
                    let message = format!(
                        "secret {name} has {} bytes, at most {LARGEST_SECRET_BYTES} are kept",
                        value.len()
                    );
                    return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, message));
                }
                self.put_secret(&namespace, &name, value.into_owned(), act).await
            }
        }
    }

    async fn list_secrets(&self, namespace: &str) -> Answer {
        let namespace = named(namespace).ok_or_else(namespace_not_valid)?;
        self.must_be_open(&namespace).await?;
        let (stored, wanted) = (self.world.secrets.stored.clone(), namespace.clone());
        let names = on_disk(move || stored.list(&wanted)).await.map_err(failed)?;
        let listed = names.iter().map(|name| Listed { name: name.as_str(), namespace: namespace.as_str() });
        Ok(json(&listed.collect::<Vec<_>>()))
    }

    async fn put_secret(&self, namespace: &Namespace, name: &SecretName, value: Vec<u8>, act: Act) -> Answer {
        let who = format!("secret {name}");
        let _held = self.claims.count_on(namespace, &[], who).map_err(|_| namespace_not_valid())?;
        self.must_be_open(namespace).await?;
        // Clients of faasd know no difference between the two.
        let either = self.provider == Provider::Faasd;
        let create = act == Act::Create;
        let (secrets, namespace, stored) = (self.world.secrets.clone(), namespace.clone(), name.clone());
        let put = on_disk(move || {
            let put = secrets.stored.put(&namespace, &stored, &value, |there| either || there != create)?;
            Ok(put.then(|| secrets.renew()))
        });
        match put.await.map_err(failed)? {
            Some(Ok(())) => Ok(empty(if create && !either { StatusCode::CREATED } else { StatusCode::OK })),
            Some(Err(error)) => {
                let message =
                    format!("secret {name} is stored, but not every function has it: {error}; try again");
                Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, message))
            }
            None if create => Err(refuse(StatusCode::CONFLICT, format!("secret {name} already exists"))),
            None => Err(not_found(name)),
        }
    }

    async fn remove_secret(&self, namespace: &Namespace, name: &SecretName) -> Answer {
        self.must_be_open(namespace).await?;
        let users = || {
            let uses = |secrets: &[String]| secrets.iter().any(|secret| secret == name.as_str());
            let all =
                self.functions.all().into_iter().filter(|function| function.key.namespace == *namespace);
            all.filter(|function| function.document().is_some_and(|document| uses(&document.secrets)))
                .map(|function| function.key.to_string())
                .collect()
        };
        // It could not start again, after a crash or at the machine's next start.
        let _held = self.claims.remove_secret(namespace, name.as_str(), users).map_err(|users| {
            let message = format!(
                "secret {name} is used by {}: remove the functions or update them to do without it, or replace its \
                 value with PUT",
                super::system::list(&users)
            );
            refuse(StatusCode::CONFLICT, message)
        })?;
        let (stored, of, named) = (self.world.secrets.stored.clone(), namespace.clone(), name.clone());
        match on_disk(move || stored.remove(&of, &named)).await.map_err(failed)? {
            true => Ok(empty(StatusCode::OK)),
            false => Err(not_found(name)),
        }
    }
}

fn not_found(name: &SecretName) -> Refusal {
    refuse(StatusCode::NOT_FOUND, format!("unable to find secret: {name}"))
}

fn failed(error: Error) -> Refusal {
    refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<Vec<u8>, String> {
        let submitted: Submitted = serde_json::from_str(text).unwrap();
        submitted.value().map(Cow::into_owned).map_err(|refusal| refusal.text)
    }

    #[test]
    fn raw_values_win() {
        assert_eq!(value(r#"{"value":"ä "}"#).unwrap(), "ä ".as_bytes());
        assert_eq!(value(r#"{"value":"x","rawValue":"AP8="}"#).unwrap(), [0, 255]);
        assert_eq!(value(r#"{"value":"x","rawValue":"e?=="}"#), Err("rawValue is not base64".into()));
        assert_eq!(value(r#"{"value":"x","rawValue":"eHl6\r\neHl6\n"}"#).unwrap(), b"xyzxyz");
        for without in [r#"{"value":"x","rawValue":null}"#, r#"{"value":"x","rawValue":""}"#] {
            assert_eq!(value(without).unwrap(), b"x");
        }
        assert_eq!(value("{}").unwrap(), b"");
    }
}
