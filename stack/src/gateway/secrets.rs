//! `/system/secrets`. Values come in and never go out: not in an answer, not in an error, not in the journal.

use bytes::Buf;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use provisioning::{Namespace, Provider};
use serde::Serialize;

use super::Gateway;
use super::claims::Who;
use super::reply::{Refusal, empty, json, refuse};
use super::router::Act;
use super::system::{Answer, bad_request, gone, named, namespace_not_valid, or_query, parameter, read};
use super::wire::{self, Submitted};
use crate::desired::{LARGEST_SECRET_BYTES, SecretName, on_disk};
use crate::error::Error;

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
            wire::parse(bytes.reader()).map_err(|error| {
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
                let value = submitted.value().map_err(bad_request)?;
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
        let who = Who::Request(format!("a request is changing secret {name}"));
        let held = self.claims.count_on(namespace, &[], who).map_err(|going| gone(namespace, going))?;
        self.must_be_open(namespace).await?;
        // Clients of faasd know no difference between the two.
        let either = self.provider == Provider::Faasd;
        let create = act == Act::Create;
        let (world, functions) = (self.world.clone(), self.functions.clone());
        let (namespace, stored) = (namespace.clone(), name.clone());
        let put = on_disk(move || {
            // The disk goes on when the client does not wait for it, and so does what it counts on.
            let _held = held;
            let mut new = false;
            let wanted = |there: bool| {
                new = !there;
                either || there != create
            };
            if !world.secrets.stored.put(&namespace, &stored, &value, wanted)? {
                return Ok(None);
            }
            // It is stored: what is wrong with one function's copy is no failure of the request.
            if let Err(error) = world.secrets.renew(&namespace, &stored) {
                tracing::warn!("not every function has the new value of secret {stored}: {error}");
            }
            if new {
                functions.note_missing_secrets(&world, Some(&namespace));
            }
            Ok(Some(new))
        });
        match put.await.map_err(failed)? {
            // An update that made it is no less an update: clients take 201 for the failure of one.
            Some(new) => Ok(empty(if new && create { StatusCode::CREATED } else { StatusCode::OK })),
            None if create => Err(refuse(StatusCode::CONFLICT, format!("secret {name} already exists"))),
            None => Err(not_found(name)),
        }
    }

    async fn remove_secret(&self, namespace: &Namespace, name: &SecretName) -> Answer {
        self.must_be_open(namespace).await?;
        let held = self.claims.remove_secret(namespace, name.as_str()).map_err(|used| {
            let who = super::system::list(&used.functions);
            let message = format!("secret {name} is needed by what is being deployed ({who}): try again");
            refuse(StatusCode::CONFLICT, message)
        })?;
        let (world, functions) = (self.world.clone(), self.functions.clone());
        let (of, named) = (namespace.clone(), name.clone());
        let removed = on_disk(move || {
            let _held = held;
            let removed = world.secrets.stored.remove(&of, &named)?;
            // What runs keeps its copy; whoever starts it again should know before it does not.
            if removed {
                functions.note_missing_secrets(&world, Some(&of));
            }
            Ok(removed)
        });
        match removed.await.map_err(failed)? {
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
