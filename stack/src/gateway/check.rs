//! What is wrong with a deployment, whatever there is on the machine.

use crate::containerd::normalise;
use crate::desired::{Document, Scale};
use crate::reconcile::Probes;
use crate::runtime::{Limits, Requests, constraints};

/// What can be known to be wrong before anything is started.
pub fn check(document: &Document) -> Result<(), String> {
    if normalise(&document.image).is_none() {
        return Err(format!("image {:?} is no image reference", document.image));
    }
    Limits::parse(document.limits.as_ref()).map_err(|error| format!("limits: {error}"))?;
    Requests::parse(document.requests.as_ref()).map_err(|error| format!("requests: {error}"))?;
    Scale::parse(&document.labels)?;
    Probes::parse(&document.annotations)?;
    let odd = |(name, value): (&String, &String)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    };
    if let Some((name, _)) = document.environment.iter().find(|pair| odd(*pair)) {
        return Err(format!("envVars: {name:?} cannot be an environment variable"));
    }
    if document.env_process.as_ref().is_some_and(|text| text.contains('\0')) {
        return Err("envProcess: holds a zero byte".to_owned());
    }
    constraints::check(&document.constraints).map_err(|error| error.to_string())
}
