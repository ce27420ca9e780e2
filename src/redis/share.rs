//! Open runs, shared between instances through `<prefix>ingest:run:<channel>`.

use std::time::Duration;

use fred::{interfaces::KeysInterface, types::Expiration};
use tokio::time::timeout;
use tracing::debug;

use super::{acl::Resource, link::Link, value::SMALL_VALUE};

/// How long the first message without a run id may wait for the run of another instance.
const FETCH_TIMEOUT: Duration = Duration::from_millis(250);
/// A shared run expires after this long without an update.
const EXPIRE_SECONDS: i64 = 7 * 86_400;

/// Reads and writes the shared runs. While Redis is away or slow, no run is shared.
#[derive(Clone, Debug)]
pub struct RunShare {
    link: Link,
    prefix: String,
}

impl RunShare {
    /// Over this connection, under this key prefix.
    pub fn new(link: Link, key_prefix: &str) -> Self {
        Self { link, prefix: format!("{key_prefix}ingest:run:") }
    }

    /// The shared run of a channel, as JSON; waits at most [`FETCH_TIMEOUT`].
    pub async fn fetch(&self, channel: &str) -> Option<String> {
        let mut link = self.link.clone();
        let read = async {
            let client = link.connected().await?;
            let key = format!("{}{channel}", self.prefix);
            let read = link.read(&client, &key, SMALL_VALUE).await;
            read.inspect_err(|error| link.acl().warn(error, Resource::Key(&key))).ok().flatten()
        };
        timeout(FETCH_TIMEOUT, read).await.ok().flatten()
    }

    /// Shares the run of a channel. A failure is harmless: the next change shares it again.
    pub async fn publish(&self, channel: &str, json: String) {
        let Some(client) = self.link.client() else { return };
        let expire = Some(Expiration::EX(EXPIRE_SECONDS));
        let key = format!("{}{channel}", self.prefix);
        if let Err(error) = client.set::<(), _, _>(&key, json, expire, None, false).await {
            self.link.acl().warn(&error, Resource::Key(&key));
            debug!(%error, "failed to share an open run");
        }
    }

    /// Deletes the shared run of a channel.
    pub async fn forget(&self, channel: &str) {
        let Some(client) = self.link.client() else { return };
        let key = format!("{}{channel}", self.prefix);
        if let Err(error) = client.del::<(), _>(&key).await {
            self.link.acl().warn(&error, Resource::Key(&key));
            debug!(%error, "failed to delete a shared run");
        }
    }
}
