//! `cache`: shows keys below our prefix in Redis, and deletes those that hold a latest value.
//!
//! Keys are read page by page with SCAN, which does not block a shared Redis. Sessions, and what the daemons share under
//! `ingest:`, are never deleted, whatever the pattern.

use fred::{clients::Client, interfaces::KeysInterface, types::scan::ScanType};
use serde_json::{Value, json};

use super::{
    CliError,
    connect::{connect, escape_glob, failed},
    output,
};
use crate::{
    config::Settings,
    redis::{self, LATEST_EXTRA, Resource, SMALL_VALUE, STATUS_VALUE, ValueLookup},
    terminal,
};

/// Keys asked for in one step of a walk, and deleted in one command.
const SCAN_COUNT: u32 = 500;
/// No cache: deleting one would end sessions or make instances forget their runs.
const PROTECTED_PREFIXES: [&str; 2] = ["session:", "ingest:"];

/// The subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print the value of a key: `metrics:latest`.
    Get {
        /// With or without the prefix.
        key: String,
    },
    /// Delete the keys that match a pattern: `'metrics:*'`.
    Invalidate {
        /// As Redis matches: `*`, `?`, `[ab]`; with or without the prefix.
        pattern: String,
    },
    /// Delete every latest-state key.
    Clear,
}

/// Runs a subcommand.
pub async fn run(settings: Settings, command: Command, json: bool) -> Result<(), CliError> {
    let prefix = &settings.redis.key_prefix;
    if prefix.is_empty() {
        return Err(CliError::Usage(
            "`redis.key_prefix` is empty: our keys cannot be distinguished from other keys".into(),
        ));
    }
    let client = connect(&settings.redis).await?;
    let redis = &settings.redis;
    match command {
        Command::Get { key } => {
            let key = with_prefix(prefix, &key);
            get(&client, redis, &KeyQuery { max: value_max(&settings, &key), key }, json).await
        }
        Command::Invalidate { pattern } => {
            let pattern = format!("{}{}", escape_glob(prefix), without_prefix(prefix, &pattern));
            let deleted = delete(&client, redis, &pattern).await?;
            report(deleted, json)
        }
        Command::Clear => {
            let deleted = delete(&client, redis, &format!("{}*", escape_glob(prefix))).await?;
            report(deleted, json)
        }
    }
}

fn without_prefix<'a>(prefix: &str, key: &'a str) -> &'a str {
    key.strip_prefix(prefix).unwrap_or(key)
}

fn with_prefix(prefix: &str, key: &str) -> String {
    format!("{prefix}{}", without_prefix(prefix, key))
}

/// Whether the key may be deleted.
fn is_cache(prefix: &str, key: &str) -> bool {
    key.strip_prefix(prefix).is_some_and(|rest| !PROTECTED_PREFIXES.iter().any(|kept| rest.starts_with(kept)))
}

/// A key to show, and the largest size of its value.
struct KeyQuery {
    key: String,
    max: usize,
}

/// The largest value that a daemon writes under this key.
fn value_max(settings: &Settings, key: &str) -> usize {
    match without_prefix(&settings.redis.key_prefix, key) {
        "history:latest" => settings.latest.history_bytes.as_usize(),
        name if name.ends_with(":latest") => settings.limits.message.as_usize() + LATEST_EXTRA,
        name if name.starts_with("ingest:") && !name.starts_with("ingest:run:") => STATUS_VALUE,
        _ => SMALL_VALUE,
    }
}

async fn get(client: &Client, redis: &redis::Config, query: &KeyQuery, json: bool) -> Result<(), CliError> {
    let key = query.key.as_str();
    let failed = |error| failed(redis, format!("failed to read `{key}`"), Resource::Key(key), error);
    if key.contains(":session:") {
        return Err(CliError::Usage("sessions are not shown".into()));
    }
    let value = match redis::read_value(client, key, query.max).await.map_err(failed)? {
        ValueLookup::Usable(value) => value,
        ValueLookup::Absent => return Err(CliError::NegativeAnswer(format!("there is no key `{key}`"))),
        ValueLookup::Unusable(why) => {
            return Err(CliError::NegativeAnswer(format!("`{key}` holds {why}; it is not shown")));
        }
    };
    if !json {
        return output::line(&terminal::field(&value));
    }
    let left: i64 = client.pttl(key).await.map_err(failed)?;
    let value = serde_json::from_str::<Value>(&value).unwrap_or(Value::String(value));
    output::json(&json!({ "key": key, "value": value, "ttl_ms": (left >= 0).then_some(left) }))
}

/// Deletes the matching keys that are a cache.
async fn delete(client: &Client, redis: &redis::Config, pattern: &str) -> Result<u64, CliError> {
    let prefix = redis.key_prefix.as_str();
    let failed = |error| failed(redis, "failed to delete keys", Resource::Key(prefix), error);
    let (mut cursor, mut deleted) = ("0".to_owned(), 0);
    loop {
        let (next, keys): (String, Vec<String>) =
            client.scan_page(cursor, pattern, Some(SCAN_COUNT), Some(ScanType::String)).await.map_err(failed)?;
        let ours: Vec<_> = keys.into_iter().filter(|key| is_cache(prefix, key)).collect();
        if !ours.is_empty() {
            deleted += client.unlink::<u64, _>(ours).await.map_err(failed)?;
        }
        if next == "0" {
            return Ok(deleted);
        }
        cursor = next;
    }
}

fn report(deleted: u64, json: bool) -> Result<(), CliError> {
    match (json, deleted) {
        (true, _) => output::json(&json!({ "deleted": deleted })),
        (false, 1) => output::line("1 key is deleted"),
        (false, _) => output::line(&format!("{deleted} keys are deleted")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_cache_below_our_prefix_is_deleted() {
        for (key, cache) in [
            ("cascor:metrics:latest", true),
            ("cascor:metrics:6f0c:latest", true),
            ("cascor:session:abc", false),
            ("cascor:ingest:run:cascor:training", false),
            ("other:metrics:latest", false),
            ("cascor", false),
        ] {
            assert_eq!(is_cache("cascor:", key), cache, "{key}");
        }
        assert_eq!(
            (with_prefix("cascor:", "metrics:latest"), with_prefix("cascor:", "cascor:x")),
            ("cascor:metrics:latest".into(), "cascor:x".into())
        );
        assert_eq!(escape_glob("a*b[c]:"), "a\\*b\\[c\\]:");
    }
}
