//! status.json: what people's and programs' tools read.

use std::path::Path;

use super::STATUS;
use crate::board::Board;
use crate::file;

/// Writes status.json at each change. It names problems, which may quote a line of the configuration: for root alone.
pub(super) async fn write(board: Board) {
    let mut changes = board.changes();
    loop {
        let bytes = serde_json::to_vec_pretty(&board.status()).unwrap_or_default();
        if let Err(error) = file::replace(Path::new(STATUS), &bytes, 0o600) {
            tracing::warn!("{error}");
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
