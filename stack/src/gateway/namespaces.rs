//! `/system/namespaces` and `/system/namespace/NAME`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Buf;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use provisioning::Namespace;

use super::Gateway;
use super::claims::{Held, Who};
use super::reply::{Refusal, empty, json, refuse};
use super::router::Act;
use super::system::{self, Answer, bad_request, namespace_not_valid, read};
use super::wire::{self, FunctionNamespace, check_namespace, is_marked};
use crate::desired::{MARK, NamespaceDocument, on_disk};
use crate::error::Error;

impl Gateway {
    /// The namespaces that functions may be in; the default one first.
    pub async fn namespaces(&self) -> Answer {
        let default = Namespace::default().to_string();
        let mut names = self.marked_namespaces().await?;
        names.extend(self.world.namespaces.names().iter().map(ToString::to_string));
        names.retain(|name| *name != default);
        names.sort();
        names.dedup();
        names.insert(0, default);
        Ok(json(&names))
    }

    /// Shows, makes, changes or removes one; `name` is the path's, which may be empty.
    pub async fn namespace(self: &Arc<Self>, request: Request<Incoming>, act: Act, name: &str) -> Answer {
        if name.is_empty() && act != Act::Create {
            return Err(bad_request("namespace not specified in URL"));
        }
        if act == Act::Read {
            return self.show(name).await;
        }
        let body = submitted(request, name, act).await?;
        // One change at a time: what is looked at must still be so when it is acted upon.
        let turn = self.world.changing_namespaces.clone().lock_owned().await;
        let (gateway, name) = (self.clone(), name.to_owned());
        // It goes on when the client does not wait for it, and the next one waits for its end.
        let changed = self.world.spawn(async move {
            let _turn = turn;
            match act {
                Act::Create => gateway.create(body).await,
                Act::Replace => gateway.change(body).await,
                _ => gateway.remove(&name).await,
            }
        });
        system::unwound(changed.await)
    }

    async fn show(&self, name: &str) -> Answer {
        let (_, document) = self.find(name).await?;
        let NamespaceDocument { labels, annotations, .. } = document;
        Ok(json(&FunctionNamespace { name: name.to_owned(), annotations, labels }))
    }

    async fn create(&self, body: FunctionNamespace) -> Answer {
        let name = body.name.as_str();
        let namespace: Namespace =
            name.parse().map_err(|invalid| bad_request(format!("namespace {name:?} {invalid}")))?;
        let exists = || refuse(StatusCode::CONFLICT, format!("namespace {name} already exists"));
        let _held = self.count_on(&namespace)?;
        let known = namespace == Namespace::default() || self.world.namespaces.get(&namespace).is_some();
        if known || self.labels_in_containerd(name).await?.is_some() {
            return Err(exists());
        }
        // The document first: what is interrupted after it is made whole at the next start.
        let document = NamespaceDocument::new(&namespace, body.labels.clone(), body.annotations.clone());
        self.keep(&namespace, document).await.map_err(failed)?;
        if let Err(error) = self.world.containerd.ensure_namespace(name).await {
            // Not half of it: the same request can be made again.
            let (namespaces, of) = (self.world.namespaces.clone(), namespace.clone());
            if let Err(second) = on_disk(move || namespaces.remove(&of)).await {
                tracing::warn!("taking namespace {name} back: {second}");
            }
            return Err(failed(error));
        }
        Ok(empty(StatusCode::CREATED))
    }

    async fn change(&self, body: FunctionNamespace) -> Answer {
        let (namespace, _) = self.find(&body.name).await?;
        let _held = self.count_on(&namespace)?;
        let document = NamespaceDocument::new(&namespace, body.labels, body.annotations);
        self.keep(&namespace, document).await.map_err(failed)?;
        Ok(empty(StatusCode::ACCEPTED))
    }

    async fn remove(&self, name: &str) -> Answer {
        let (namespace, _) = self.find(name).await?;
        if namespace == Namespace::default() {
            return Err(bad_request(format!(
                "namespace {name} is where functions are that name none, it cannot be removed"
            )));
        }
        let users = || {
            let inside =
                self.functions.all().into_iter().filter(|function| function.key.namespace == namespace);
            inside.filter(|function| function.document().is_some()).map(|f| f.key.to_string()).collect()
        };
        let _held = self.claims.remove_namespace(&namespace, users).map_err(|used| {
            let message = if used.functions.is_empty() {
                format!("{}: try again", used.requests.join(", "))
            } else {
                let functions = if used.functions.len() == 1 { "function" } else { "functions" };
                let (number, names) = (used.functions.len(), system::list(&used.functions));
                format!("namespace {name} has {number} {functions} ({names}): remove them first")
            };
            refuse(StatusCode::CONFLICT, message)
        })?;
        let containers = self.world.containerd.container_names(name).await.map_err(failed)?;
        if !containers.is_empty() {
            let message = format!(
                "namespace {name} still has containers ({}): those of functions are gone in a moment, try again then; \
                 others are not ours to remove",
                system::list(&containers)
            );
            return Err(refuse(StatusCode::CONFLICT, message));
        }
        self.world.remove_namespace(&namespace).await.map_err(failed)?;
        Ok(empty(StatusCode::ACCEPTED))
    }

    /// Keeps others from removing it meanwhile.
    fn count_on(&self, namespace: &Namespace) -> Result<Held, Refusal> {
        let who = Who::Request(format!("a request is changing namespace {namespace}"));
        self.claims.count_on(namespace, &[], who).map_err(|going| system::gone(namespace, going))
    }

    async fn keep(&self, namespace: &Namespace, document: NamespaceDocument) -> Result<(), Error> {
        let (namespaces, namespace) = (self.world.namespaces.clone(), namespace.clone());
        on_disk(move || namespaces.put(&namespace, &document)).await
    }

    /// A namespace that functions may be in, with what is known of it.
    async fn find(&self, name: &str) -> Result<(Namespace, NamespaceDocument), Refusal> {
        let absent = || refuse(StatusCode::NOT_FOUND, format!("namespace {name} not found"));
        let parsed = name.parse::<Namespace>().ok();
        if let Some(namespace) = &parsed
            && let Some(document) = self.world.namespaces.get(namespace)
        {
            return Ok((namespace.clone(), document));
        }
        let default = Namespace::default();
        if parsed.as_ref() == Some(&default) {
            let document = NamespaceDocument::new(&default, BTreeMap::new(), BTreeMap::new());
            return Ok((default, document));
        }
        let labels = self.labels_in_containerd(name).await?.ok_or_else(absent)?;
        match parsed {
            Some(namespace) if is_marked(labels.get(MARK)) => {
                let document = NamespaceDocument::new(&namespace, labels, BTreeMap::new());
                Ok((namespace, document))
            }
            _ => Err(bad_request(format!("namespace {name} is not an openfaas namespace"))),
        }
    }

    async fn labels_in_containerd(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, Refusal> {
        let all = self.world.containerd.namespaces().await.map_err(failed)?;
        let found = all.into_iter().find(|namespace| namespace.name == name);
        Ok(found.map(|namespace| namespace.labels.into_iter().collect()))
    }

    /// containerd's namespaces that carry OpenFaaS's mark and have a name that functions can have.
    async fn marked_namespaces(&self) -> Result<Vec<String>, Refusal> {
        let all = self.world.containerd.namespaces().await.map_err(failed)?;
        let ours = all.into_iter().filter(|namespace| is_marked(namespace.labels.get(MARK)));
        Ok(ours.map(|namespace| namespace.name).filter(|name| name.parse::<Namespace>().is_ok()).collect())
    }

    /// Refuses a namespace that functions may not be in.
    pub async fn must_be_open(&self, namespace: &Namespace) -> Result<(), Refusal> {
        let known = *namespace == Namespace::default() || self.world.namespaces.get(namespace).is_some();
        if known || self.marked_namespaces().await?.iter().any(|name| name == namespace.as_str()) {
            return Ok(());
        }
        Err(namespace_not_valid())
    }
}

async fn submitted(request: Request<Incoming>, path: &str, act: Act) -> Result<FunctionNamespace, Refusal> {
    let bytes = read(request).await?;
    // Who removes something has said all in the path.
    if act == Act::Remove && !bytes.has_remaining() {
        return Ok(FunctionNamespace { name: path.to_owned(), ..FunctionNamespace::default() });
    }
    let body = wire::parse(bytes.reader())
        .map_err(|error| bad_request(format!("error parsing request body: {error}")))?;
    check_namespace(&body, path, act).map_err(bad_request).map(|()| body)
}

fn failed(error: Error) -> Refusal {
    refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}
