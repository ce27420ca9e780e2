//! Commands about many keys. In a cluster these are on different nodes: one command each, and a walk over all nodes.

use std::mem;

use fred::{
    clients::Client,
    error::Error as RedisError,
    interfaces::{ClientLike, KeysInterface},
    types::scan::{ScanType, Scanner},
};
use futures_util::TryStreamExt;

/// Keys asked for in one step of a walk.
const SCAN_COUNT: u32 = 500;

/// Deletes keys. Returns how many were there.
///
/// # Errors
/// When Redis does not answer, or refuses.
pub async fn delete(client: &Client, keys: Vec<String>) -> Result<u64, RedisError> {
    if !client.is_clustered() {
        return client.del(keys).await;
    }
    let pipeline = client.pipeline();
    for key in keys {
        // Queued only: the reply comes with the pipeline's.
        pipeline.del::<(), _>(key).await?;
    }
    let deleted: Vec<Result<u64, RedisError>> = pipeline.try_all().await;
    deleted.into_iter().sum()
}

/// The keys that match a pattern, on all nodes.
///
/// # Errors
/// As [`delete`].
pub async fn scan(client: &Client, pattern: &str, kind: Option<ScanType>) -> Result<Vec<String>, RedisError> {
    let mut found = Vec::new();
    if client.is_clustered() {
        let mut pages = Box::pin(client.scan_cluster(pattern, Some(SCAN_COUNT), kind));
        while let Some(mut page) = pages.try_next().await? {
            let keys = page.take_results().unwrap_or_default();
            found.extend(keys.into_iter().filter_map(|key| key.into_string()));
            page.next();
        }
        return Ok(found);
    }
    let mut cursor = "0".to_owned();
    loop {
        let (next, keys): (String, Vec<String>) =
            client.scan_page(mem::take(&mut cursor), pattern, Some(SCAN_COUNT), kind.clone()).await?;
        found.extend(keys);
        if next == "0" {
            return Ok(found);
        }
        cursor = next;
    }
}
