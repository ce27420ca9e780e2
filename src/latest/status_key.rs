//! The key with the status of a daemon.

use std::time::Duration;

use fred::{interfaces::KeysInterface, types::Value};
use tokio::time::timeout;

use crate::redis::{Link, Resource};

/// How long Redis may take to remove the status at the end.
const STATUS_DELETE_TIMEOUT: Duration = Duration::from_millis(500);

pub(super) fn status_key(prefix: &str, instance: &str) -> String {
    format!("{prefix}ingest:{instance}")
}

/// Removes a daemon's status, which would show an ended daemon until its TTL. Best effort.
pub async fn delete_status(link: Link, prefix: String, instance: String) {
    if let Some(client) = link.client() {
        let key = status_key(&prefix, &instance);
        if let Ok(Err(error)) = timeout(STATUS_DELETE_TIMEOUT, client.del::<Value, _>(&key)).await {
            link.acl().warn(&error, Resource::Key(&key));
        }
    }
}
