//! Open runs, shared between instances through `<prefix>ingest:run:<channel>`.

use std::time::Duration;

use fred::{interfaces::KeysInterface, types::Expiration};
use tokio::time::timeout;
use tracing::debug;

use super::{acl::Resource, link::Link, value::SMALL_VALUE};

/// How long the first message without an id may wait for another instance's word.
const FETCH_TIMEOUT: Duration = Duration::from_millis(250);
/// A shared run is forgotten after this long without news of it.
const EXPIRE_SECONDS: i64 = 7 * 86_400;

/// Reads and writes the shared runs. A Redis that is away or slow is the same as one that knows nothing.
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

    /// What is shared about a channel; at most 250 ms.
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

    /// Shares what is known about a channel. Failing is harmless: the next change shares it again.
    pub async fn publish(&self, channel: &str, json: String) {
        let Some(client) = self.link.client() else { return };
        let expire = Some(Expiration::EX(EXPIRE_SECONDS));
        let key = format!("{}{channel}", self.prefix);
        if let Err(error) = client.set::<(), _, _>(&key, json, expire, None, false).await {
            self.link.acl().warn(&error, Resource::Key(&key));
            debug!(%error, "failed to share an open run");
        }
    }

    /// Deletes what is shared about a channel.
    pub async fn forget(&self, channel: &str) {
        let Some(client) = self.link.client() else { return };
        let key = format!("{}{channel}", self.prefix);
        if let Err(error) = client.del::<(), _>(&key).await {
            self.link.acl().warn(&error, Resource::Key(&key));
            debug!(%error, "failed to delete a shared run");
        }
    }
}
