//! Which registries are asked for an image, and how.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use provisioning::{PullPolicy, Registry, RegistryName};

use super::document::Document;
use super::source::{Place, Source};
use crate::containerd::Reference;
use crate::error::{Error, Result, Trouble};

/// How often the sources are asked anew while none of them is there, and the pause before the first time.
const ROUNDS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// All sources together may take so long: whoever deploys waits.
const LONGEST: Duration = Duration::from_secs(45);

/// What the configuration says of registries.
#[derive(Debug, Clone)]
pub struct Settings {
    /// When one is asked for a function's image.
    pub policy: PullPolicy,
    /// What single ones need.
    pub named: BTreeMap<RegistryName, Registry>,
    /// The file of users and passwords; it need not be there.
    pub docker_config: PathBuf,
    /// The longest silence of a registry.
    pub patience: Duration,
}

/// Who is asked for an image, in this order.
#[derive(Clone)]
pub struct Sources(Vec<Arc<Source>>);

impl Settings {
    /// Who has an image: the mirrors of its registry, then the registry itself. The files of certificates and of
    /// passwords are read now.
    pub fn sources(&self, reference: &Reference) -> Result<Sources> {
        let settings = |registry: &str| {
            let name = registry.parse::<RegistryName>().ok();
            name.and_then(|name| self.named.get(&name)).cloned().unwrap_or_default()
        };
        let own = settings(&reference.registry);
        let mut sources = Vec::new();
        for mirror in &own.mirrors {
            let path = match mirror.path.as_str() {
                "" => reference.repository.clone(),
                path => format!("{path}/{}", reference.repository),
            };
            let (place, named) =
                (Place::new(mirror.registry.as_str(), &path), settings(mirror.registry.as_str()));
            match Source::new(place, &named, self) {
                Ok(source) => sources.push(Arc::new(source)),
                // The next one may do.
                Err(error) => tracing::warn!("the mirror {} is passed over: {error}", mirror.registry),
            }
        }
        let place = Place::new(&reference.registry, &reference.repository);
        sources.push(Arc::new(Source::new(place, &own, self)?));
        Ok(Sources(sources))
    }
}

/// What sources are asked for.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    /// A manifest or index, by tag or digest.
    Manifest(&'a str),
    /// A small blob, by digest.
    Blob(&'a str),
}

impl Sources {
    /// A manifest or index by tag or digest, from the first that has it; and who is to be asked for what it names: that
    /// one, and those after it.
    pub async fn manifest(&self, version: &str) -> Result<(Document, Self)> {
        let (document, at) = self.first(Wanted::Manifest(version)).await?;
        Ok((document, Self(self.0.iter().skip(at).cloned().collect())))
    }

    /// An image's configuration, from the first that has it.
    pub async fn configuration(&self, digest: &str) -> Result<Document> {
        Ok(self.first(Wanted::Blob(digest)).await?.0)
    }

    /// All of them, in the order of asking.
    pub fn all(&self) -> &[Arc<Source>] {
        &self.0
    }

    /// The first answer, and whose it is.
    async fn first(&self, wanted: Wanted<'_>) -> Result<(Document, usize)> {
        let mut causes = self.0.iter().map(|_| None).collect::<Vec<_>>();
        let found = tokio::time::timeout(LONGEST, self.ask(wanted, &mut causes)).await;
        if let Ok(Some(found)) = found {
            return Ok(found);
        }
        let late = |source: &Source| {
            let reason = format!("no answer came within the {} s that all may take", LONGEST.as_secs());
            source.client().error("ask", Trouble::Silent, reason)
        };
        let causes = causes.into_iter().zip(&self.0);
        Err(Error::Registries {
            causes: causes.map(|(cause, source)| cause.unwrap_or_else(|| late(source))).collect(),
        })
    }

    /// Asks one after the other, and again those for whom that may be of use.
    async fn ask(&self, wanted: Wanted<'_>, causes: &mut [Option<Error>]) -> Option<(Document, usize)> {
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(PAUSE * 2_u32.pow(round - 1)).await;
            }
            for (at, (source, cause)) in self.0.iter().zip(causes.iter_mut()).enumerate() {
                if !cause.as_ref().is_none_or(Error::is_passing) {
                    continue;
                }
                let answer = match wanted {
                    Wanted::Manifest(version) => source.manifest(version).await,
                    Wanted::Blob(digest) => source.small_blob(digest).await,
                };
                match answer {
                    Ok(document) => return Some((document, at)),
                    Err(error) => {
                        tracing::info!("{error}");
                        *cause = Some(error);
                    }
                }
            }
            if !causes.iter().flatten().any(Error::is_passing) {
                return None;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        let config = provisioning::parse(&format!("version = 1\n{text}"), "test").unwrap();
        Settings {
            policy: config.registries.pull_policy,
            named: config.registries.named,
            docker_config: "/nonexistent".into(),
            patience: Duration::from_secs(1),
        }
    }

    fn addresses(text: &str, reference: &str) -> Vec<String> {
        let sources = settings(text).sources(&Reference::parse(reference).unwrap()).unwrap();
        sources.all().iter().map(|source| source.address("manifests/1")).collect()
    }

    #[test]
    fn mirrors_come_first_and_have_tables_of_their_own() {
        let text = "[registries.\"docker.io\"]\nmirrors = [\"10.0.0.7:5000\", \"mirror.example/hub\"]\n\
                    [registries.\"10.0.0.7:5000\"]\ninsecure = true\nmirrors = [\"never.example\"]\n";
        assert_eq!(
            addresses(text, "figlet"),
            [
                "http://10.0.0.7:5000/v2/library/figlet/manifests/1",
                "https://mirror.example/v2/hub/library/figlet/manifests/1",
                "https://registry-1.docker.io/v2/library/figlet/manifests/1",
            ]
        );
        assert_eq!(addresses(text, "ghcr.io/a/b:2"), ["https://ghcr.io/v2/a/b/manifests/1"]);
        assert_eq!(
            addresses("[registries.\"ghcr.io\"]\ninsecure = true\n", "GHCR.io/a/b"),
            ["http://GHCR.io/v2/a/b/manifests/1"]
        );
    }

    #[tokio::test]
    async fn who_says_nothing_is_asked_once() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = silent.local_addr().unwrap().to_string();
        let settings = settings(&format!("[registries.\"{name}\"]\ninsecure = true\n"));
        let sources = settings.sources(&Reference::parse(&format!("{name}/a")).unwrap()).unwrap();
        let mut clients = Vec::new();
        let accept = async {
            while let Ok((client, _)) = silent.accept().await {
                clients.push(client);
            }
        };
        let error = tokio::select! {
            answer = sources.manifest("1") => answer.map(|_| ()).unwrap_err(),
            () = accept => panic!(),
        };
        assert!(error.is_away() && !error.is_lasting(), "{error}");
        assert_eq!(clients.len(), 1, "{error}");
    }

    #[test]
    fn a_mirror_whose_certificates_are_missing_is_passed_over_a_registry_is_not() {
        let text = "[registries.\"docker.io\"]\nmirrors = [\"a.example\"]\n\
                    [registries.\"a.example\"]\nca = \"/nonexistent/ca.pem\"\n";
        assert_eq!(addresses(text, "figlet").len(), 1);
        let wrong = settings(text).sources(&Reference::parse("a.example/b").unwrap());
        assert!(wrong.is_err_and(|error| error.to_string().contains("/nonexistent/ca.pem")));
    }
}
