//! `POST /system/alert`: Alertmanager's webhook. A function that is said to be busy gets more instances, one that is no
//! longer gets its least number.

use bytes::Buf;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};

use super::Gateway;
use super::reply::{empty, refuse};
use super::system::{Answer, bad_request, read};
use super::wire::{self, Alert, Webhook};
use crate::desired::Scale;
use crate::key::Key;
use crate::object::Object;
use crate::reconcile::Refused;

impl Gateway {
    /// Scales the functions that alerts are about.
    pub async fn alert(&self, request: Request<Incoming>) -> Answer {
        let bytes = read(request).await.map_err(|_| bad_request("Unable to read alert."))?;
        let webhook: Webhook =
            wire::parse(bytes.reader()).map_err(|_| bad_request("Unable to parse alert, bad format."))?;
        let mut errors = Vec::new();
        for (number, Object(alert)) in webhook.alerts.iter().enumerate() {
            if let Err(error) = self.follow(alert, webhook.fires(alert)).await {
                errors.push(format!("[{number}] {error}"));
            }
        }
        if errors.is_empty() {
            return Ok(empty(StatusCode::OK));
        }
        Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, errors.join("\n")))
    }

    async fn follow(&self, alert: &Alert, firing: bool) -> Result<(), String> {
        let name = alert.function_name();
        let key = Key::from_path(name).ok_or_else(|| format!("function_name {name:?} names no function"))?;
        let absent = || format!("function {key} not found");
        let function = self.functions.get(&key).ok_or_else(absent)?;
        let document = function.document().ok_or_else(absent)?;
        let wanted = Scale::of(&document.labels).alerted(firing, document.replicas);
        if wanted == document.replicas {
            return Ok(());
        }
        match self.functions.scale(&key, wanted).await {
            Ok(()) => Ok(()),
            Err(Refused::Absent | Refused::Exists) => Err(absent()),
            Err(Refused::Failed(error)) => Err(format!("function {key}: {error}")),
        }
    }
}
