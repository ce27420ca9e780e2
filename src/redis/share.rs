//! Open runs, shared between instances through `<prefix>ingest:run:<channel>`.

use std::time::Duration;

use fred::{
    clients::Client,
    error::{Error as RedisError, ErrorKind},
    interfaces::{ClientLike, KeysInterface},
    types::{ClusterHash, CustomCommand, Expiration, Value},
};
use tokio::time::timeout;
use tracing::debug;

use super::{acl::Resource, link::Link, value::SMALL_VALUE};

/// How long the first message without a run id may wait for the run of another instance.
const FETCH_TIMEOUT: Duration = Duration::from_millis(250);
/// A shared run expires after this long without an update.
const EXPIRE_SECONDS: i64 = 7 * 86_400;

/// Sets a value if it is as expected; an absent one is empty.
const EXCHANGE: &str = "local now = redis.call('GET', KEYS[1]) or '' \
    if now == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) return 1 end \
    return now";

/// Why nothing can be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unshared {
    /// Redis does not answer.
    Unavailable,
    /// Redis refuses: the ACL forbids the command or the key, or the key holds something else.
    Refused,
}

/// Whether the same command may work later without anybody's help.
fn passes(client: &Client, error: &RedisError) -> bool {
    let transient =
        ["LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "OOM", "MISCONF", "NOREPLICAS"];
    !client.is_connected()
        || matches!(error.kind(), ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled)
        || transient.iter().any(|word| error.details().starts_with(word))
}

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

    /// What the daemons share of a stream.
    ///
    /// # Errors
    /// See [`Unshared`].
    pub async fn fetch_shared(&self, stream: &str) -> Result<Option<String>, Unshared> {
        let key = format!("{}{stream}", self.prefix);
        self.ask(async |link, client| link.read(client, &key, SMALL_VALUE).await, &key).await
    }

    /// Replaces it by `new`, if it is still `before`. `Some`: it is something else now, or nothing (empty).
    ///
    /// # Errors
    /// See [`Unshared`].
    pub async fn exchange(&self, stream: &str, before: Option<&str>, new: &str) -> Result<Option<String>, Unshared> {
        let key = format!("{}{stream}", self.prefix);
        let expire = EXPIRE_SECONDS.to_string();
        let arguments = [EXCHANGE, "1", &key, before.unwrap_or_default(), new, &expire].map(str::to_owned).to_vec();
        let command = CustomCommand::new_static("EVAL", ClusterHash::from(key.as_str()), false);
        let answer = self.ask(async |_, client| client.custom::<Value, _>(command, arguments).await, &key).await?;
        Ok(answer.as_string().filter(|_| !matches!(answer, Value::Integer(_))))
    }

    /// Asks within a bound of time.
    async fn ask<T>(
        &self,
        ask: impl AsyncFnOnce(&Link, &Client) -> Result<T, RedisError>,
        key: &str,
    ) -> Result<T, Unshared> {
        let mut link = self.link.clone();
        let asked = async {
            let client = link.connected().await.ok_or(Unshared::Unavailable)?;
            ask(&self.link, &client).await.map_err(|error| {
                self.link.acl().warn(&error, Resource::Key(key));
                debug!(%error, "the runs of a stream cannot be shared");
                if passes(&client, &error) { Unshared::Unavailable } else { Unshared::Refused }
            })
        };
        timeout(FETCH_TIMEOUT, asked).await.unwrap_or(Err(Unshared::Unavailable))
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
