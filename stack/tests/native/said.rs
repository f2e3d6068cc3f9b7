//! What the gateways of a test have said.

use std::fs;
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::lab::Lab;

impl Lab {
    /// All of it.
    pub fn gateway_log(&self) -> String {
        fs::read_to_string(self.folder.join("gateway.log")).unwrap_or_default()
    }

    /// Waits until that has been said.
    pub async fn until_said(&self, words: &str) {
        let begun = Instant::now();
        while !self.gateway_log().contains(words) {
            assert!(begun.elapsed() < PATIENCE, "the gateway does not say {words:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
