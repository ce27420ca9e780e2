//! The names that existing deployments set in the environment. The names of today win over them.

use std::{collections::BTreeMap, time::Duration};

use super::{
    layers::{Layers, boolean},
    precedence::Precedence,
};
use crate::units;

/// Old names that are another spelling of one key.
const LEGACY_VARIABLES: [(&str, &str); 12] = [
    ("CASCOR_CACHE_ENABLED", "latest.enabled"),
    ("CASCOR_CACHE_REDIS_URL", "redis.url"),
    ("REDIS_PASSWORD", "redis.password"),
    ("REDIS_PASSWORD_FILE", "redis.password_file"),
    ("CASCOR_CASSANDRA_CONTACT_POINTS", "store.cassandra.contact_points"),
    ("CASCOR_CASSANDRA_PORT", "store.cassandra.port"),
    ("CASCOR_CASSANDRA_KEYSPACE", "store.cassandra.keyspace"),
    ("CASCOR_CASSANDRA_BATCH_SIZE", "writer.batch_rows"),
    ("CASSANDRA_USERNAME", "store.cassandra.username"),
    ("CASSANDRA_PASSWORD", "store.cassandra.password"),
    ("CASSANDRA_PASSWORD_FILE", "store.cassandra.password_file"),
    ("CASCOR_CASSANDRA_FLUSH_INTERVAL", "writer.flush_interval"),
];

/// Lays the old names over the file. An empty variable is an unset one, as compose files write it.
pub fn apply(env: &BTreeMap<String, String>, layers: &mut Layers) {
    let set = |name: &str| env.get(name).filter(|text| !text.is_empty());
    for (name, key) in LEGACY_VARIABLES {
        let Some(text) = set(name) else { continue };
        let origin = format!("environment variable {name}");
        if key == "writer.flush_interval" {
            seconds(key, text, Precedence::OldEnvironment, &origin, layers);
        } else {
            layers.set_text(key, text, Precedence::OldEnvironment, &origin);
        }
    }
    if let Some(text) = cache_type_of(env) {
        cache_type(text, Precedence::OldEnvironment, "environment variable CASCOR_CACHE_TYPE", layers);
    }
    if let Some(text) = set("CASCOR_CASSANDRA_ENABLED") {
        cassandra_enabled(text, Precedence::OldEnvironment, "environment variable CASCOR_CASSANDRA_ENABLED", layers);
    }
}

/// What the environment says of the kind of cache.
pub fn cache_type_of(env: &BTreeMap<String, String>) -> Option<&str> {
    env.get("CASCOR_CACHE_TYPE").map(String::as_str).filter(|text| !text.is_empty())
}

/// `redis` keeps the keys; `memory` is as disabled, because a cache inside the daemon is no use to anyone else.
pub fn cache_type(text: &str, precedence: Precedence, origin: &str, layers: &mut Layers) {
    match text.trim().to_ascii_lowercase().as_str() {
        "redis" => {}
        "memory" => layers.set_text("latest.enabled", "false", precedence, origin),
        other => layers.problem(format!("`latest.enabled` ({origin}) must be `redis` or `memory`, not `{other}`")),
    }
}

/// Enabled selects Cassandra, disabled the file.
pub fn cassandra_enabled(text: &str, precedence: Precedence, origin: &str, layers: &mut Layers) {
    match boolean(text) {
        Ok(yes) => layers.set_text("store.kind", if yes { "cassandra" } else { "sqlite" }, precedence, origin),
        Err(problem) => layers.problem(format!("`store.kind` ({origin}) {problem}")),
    }
}

/// A duration as a number of seconds, perhaps with a fraction; text with a unit is taken as it is.
pub fn seconds(key: &str, text: &str, precedence: Precedence, origin: &str, layers: &mut Layers) {
    let duration = text.trim().parse::<f64>().ok().and_then(|n| Duration::try_from_secs_f64(n).ok());
    let text = duration.map_or_else(|| text.to_owned(), units::format_duration);
    layers.set_text(key, &text, precedence, origin);
}
