//! What this program is.

use serde::Serialize;

/// Body of GET /system/info.
#[derive(Debug, Serialize)]
pub struct Info {
    provider: Provider,
    version: Version,
    arch: &'static str,
}

#[derive(Debug, Serialize)]
struct Provider {
    provider: &'static str,
    orchestration: &'static str,
    version: Version,
}

#[derive(Debug, Serialize)]
struct Version {
    sha: &'static str,
    release: &'static str,
}

impl Info {
    /// What this program is, under the name that it was told to use.
    pub fn new(provider: provisioning::Provider) -> Self {
        let version = || Version {
            // The image builder may name the commit; a build by hand has none to name. Clients expect some text.
            sha: option_env!("BOTHY_COMMIT").unwrap_or("unknown"),
            release: env!("CARGO_PKG_VERSION"),
        };
        let provider =
            Provider { provider: provider.as_str(), orchestration: "containerd", version: version() };
        Self { provider, version: version(), arch: std::env::consts::ARCH }
    }
}
