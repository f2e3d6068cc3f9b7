//! The configuration, as our programs read it when they start.

use std::fs;
use std::path::Path;

use provisioning::Config;

/// The configuration of a file. The supervisor has chosen it and told about it; where it cannot be read that is told here, and the
/// defaults are what counts.
pub fn read(path: Option<&Path>) -> Config {
    let Some(path) = path else { return Config::default() };
    let read = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let parsed = read.and_then(|text| {
        provisioning::parse(&text, &path.display().to_string()).map_err(|problems| problems.to_string())
    });
    parsed.unwrap_or_else(|error| {
        tracing::error!("nothing of the configuration is applied: {error}");
        Config::default()
    })
}
