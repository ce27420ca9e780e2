//! `cache`: shows keys below our prefix in Redis, and deletes those that hold a latest value.
//!
//! Keys are read page by page with SCAN, which does not block a shared Redis. Sessions, and what the daemons share under
//! `ingest:`, are never deleted, whatever the pattern.

use std::time::Duration;

use fred::{clients::Client, interfaces::KeysInterface, types::scan::ScanType};
use serde_json::{Value, json};

use super::{
    CliError, cells,
    connect::{connect, escape_glob, failed},
    output, table,
};
use crate::{
    config::Settings,
    redis::{self, LATEST_EXTRA, Resource, SMALL_VALUE, STATUS_VALUE, ValueLookup},
    terminal, units,
    words::counted,
};

/// Keys that are named where another one is not there.
const SHOWN_KEYS: usize = 20;
/// Keys deleted in one command.
const DELETED_AT_ONCE: usize = 500;
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
        ValueLookup::Absent => return Err(CliError::NegativeAnswer(absent(client, redis, key).await)),
        ValueLookup::Unusable(why) => {
            return Err(CliError::NegativeAnswer(format!("`{key}` holds {why}; it is not shown")));
        }
    };
    if !json && !terminal::stdout_is_terminal() {
        // A program gets the value as it is.
        return output::verbatim(&value);
    }
    let left: i64 = client.pttl(key).await.map_err(failed)?;
    if !json {
        print(&value)?;
        let expires = u64::try_from(left).map(|left| units::format_duration(Duration::from_secs(left / 1_000)));
        let expires = expires.map_or_else(|_| "does not expire".into(), |left| format!("expires in {left}"));
        return output::line(&format!("\n{} {expires}", table::escaped(key)));
    }
    let value = serde_json::from_str::<Value>(&value).unwrap_or(Value::String(value));
    output::json(&json!({ "key": key, "value": value, "ttl_ms": (left >= 0).then_some(left) }))
}

/// That a key is not there, and which are: most of them expire.
async fn absent(client: &Client, redis: &redis::Config, key: &str) -> String {
    let prefix = redis.key_prefix.as_str();
    let found = redis::scan(client, &format!("{}*", escape_glob(prefix)), Some(ScanType::String)).await;
    let mut keys: Vec<_> = found.unwrap_or_default().into_iter().filter(|key| is_cache(prefix, key)).collect();
    keys.sort();
    let mut shown = keys.iter().take(SHOWN_KEYS).map(|key| format!("`{}`", table::escaped(key))).collect::<Vec<_>>();
    if keys.len() > SHOWN_KEYS {
        shown.push("…".into());
    }
    match shown.is_empty() {
        true => format!("there is no key `{key}`; all latest keys have expired, or there were none yet"),
        false => format!("there is no key `{key}`, or it has expired; there are {}", shown.join(", ")),
    }
}

/// Prints a value field by field.
fn print(value: &str) -> Result<(), CliError> {
    let mut fields = Vec::new();
    match serde_json::from_str::<Value>(value) {
        Ok(object @ Value::Object(_)) => cells::flattened("", &object, &mut fields),
        _ => return output::line(&table::escaped(value)),
    }
    let shown: Vec<_> = fields.iter().map(|(name, value)| (table::escaped(name), cells::whole(value))).collect();
    output::fields(&shown)
}

/// Deletes the matching keys that are a cache.
async fn delete(client: &Client, redis: &redis::Config, pattern: &str) -> Result<u64, CliError> {
    let prefix = redis.key_prefix.as_str();
    let failed = |error| failed(redis, "failed to delete keys", Resource::Key(prefix), error);
    let keys = redis::scan(client, pattern, Some(ScanType::String)).await.map_err(failed)?;
    let ours: Vec<_> = keys.into_iter().filter(|key| is_cache(prefix, key)).collect();
    let mut deleted = 0;
    for keys in ours.chunks(DELETED_AT_ONCE) {
        deleted += redis::delete(client, keys.to_vec()).await.map_err(failed)?;
    }
    Ok(deleted)
}

fn report(deleted: u64, json: bool) -> Result<(), CliError> {
    if json {
        return output::json(&json!({ "deleted": deleted }));
    }
    output::line(&format!("{} deleted", counted(deleted, "key is", "keys are")))
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
