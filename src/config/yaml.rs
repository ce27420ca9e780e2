//! The YAML of existing deployments: `backend.cassandra.*` and `backend.cache.*`; the rest belongs to other programs.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value};

use super::{
    layers::{Layers, Rank, boolean},
    legacy,
};

/// A section of the old file and the keys it sets.
type Table = &'static [(&'static str, Meaning)];

#[derive(Clone, Copy)]
enum Meaning {
    /// Another name for one of our keys.
    Key(&'static str),
    /// The same, given in seconds.
    Seconds(&'static str),
    /// Selects the store.
    CassandraEnabled,
    /// Selects or disables the latest keys.
    CacheType,
    /// Accepted, applies to nothing here.
    Nothing,
}

use Meaning::{CacheType, CassandraEnabled, Key, Nothing, Seconds};

const CASSANDRA: Table = &[
    ("enabled", CassandraEnabled),
    ("contact_points", Key("store.cassandra.contact_points")),
    ("port", Key("store.cassandra.port")),
    ("keyspace", Key("store.cassandra.keyspace")),
    ("pool_size", Key("store.cassandra.pool_size")),
    ("connect_timeout", Seconds("store.cassandra.connect_timeout")),
    ("request_timeout", Seconds("store.cassandra.request_timeout")),
    ("batch_size", Key("writer.batch_rows")),
    ("flush_interval", Seconds("writer.flush_interval")),
    ("consistency.write", Key("store.cassandra.consistency_write")),
    ("consistency.read", Key("store.cassandra.consistency_read")),
    ("auth_provider.enabled", Nothing),
    ("auth_provider.username", Key("store.cassandra.username")),
    ("auth_provider.password", Key("store.cassandra.password")),
];

const CACHE: Table = &[
    ("enabled", Key("latest.enabled")),
    ("type", CacheType),
    ("password", Key("redis.password")),
    ("ttl_seconds", Nothing),
    ("max_memory_mb", Nothing),
];

/// Lays such a file over the defaults.
pub fn apply(text: &str, path: &Path, env: &BTreeMap<String, String>, layers: &mut Layers) {
    let name = path.display();
    let root = match serde_saphyr::from_str::<Value>(text) {
        Ok(Value::Object(root)) => root,
        Ok(_) => return layers.problem(format!("`{name}` holds no mapping")),
        // The error's own display quotes the line, which may hold a password.
        Err(error) => {
            let line = error.location().map_or(0, |location| location.line());
            return layers.problem(format!("`{name}` line {line} is no YAML"));
        }
    };
    let mut file = File { origin: format!("in {name}"), env, layers, ignored: Vec::new(), unset: Vec::new() };
    for (key, value) in &root {
        match (key.as_str(), value) {
            ("backend", Value::Object(backend)) => file.backend(backend),
            _ => file.ignored.push(key.clone()),
        }
    }
    let File { ignored, unset, .. } = file;
    if !ignored.is_empty() {
        layers.warn(format!("`{name}`: ignored, because it is not ours: {}", ignored.join(", ")));
    }
    if !unset.is_empty() {
        layers.warn(format!("`{name}`: not set in the environment, so the default is used: {}", unset.join(", ")));
    }
}

struct File<'a> {
    origin: String,
    env: &'a BTreeMap<String, String>,
    layers: &'a mut Layers,
    ignored: Vec<String>,
    unset: Vec<String>,
}

impl File<'_> {
    fn backend(&mut self, backend: &Map<String, Value>) {
        for (key, value) in backend {
            match (key.as_str(), value) {
                ("cassandra", Value::Object(section)) => self.cassandra(section),
                ("cache", Value::Object(section)) => self.cache(section),
                _ => self.ignored.push(format!("backend.{key}")),
            }
        }
    }

    fn cassandra(&mut self, section: &Map<String, Value>) {
        let login = section.get("auth_provider").and_then(|auth| auth.get("enabled")).cloned();
        let login = login.and_then(|value| self.scalar(&value)).is_none_or(|text| boolean(&text).unwrap_or(true));
        for (key, value) in flat(section) {
            if !login && key.starts_with("auth_provider.") {
                continue;
            }
            self.one("backend.cassandra", CASSANDRA, &key, value);
        }
    }

    fn cache(&mut self, section: &Map<String, Value>) {
        let flat = flat(section);
        // Two old keys make one of ours: the URL, and whether it is encrypted.
        let mut find = |names: &[&str]| {
            let value = flat.iter().find(|(key, _)| names.contains(&key.as_str()))?.1;
            self.scalar(value)
        };
        let (url, ssl) = (find(&["redis_url"]), find(&["ssl", "ssl.enabled"]));
        let url = url.map(|url| match ssl.as_deref().map(boolean) {
            Some(Ok(true)) if url.starts_with("redis://") => url.replacen("redis://", "rediss://", 1),
            _ => url,
        });
        if let Some(url) = url {
            self.layers.set_text("redis.url", &url, Rank::File, &format!("backend.cache.redis_url {}", self.origin));
        }
        // `enabled` first, because `type: memory` disables what it enabled.
        for (key, value) in flat {
            match key.as_str() {
                "redis_url" | "ssl" | "ssl.enabled" => {}
                key if key.starts_with("connection_pool") => {}
                key => self.one("backend.cache", CACHE, key, value),
            }
        }
    }

    fn one(&mut self, section: &str, table: Table, key: &str, value: &Value) {
        let Some((_, meaning)) = table.iter().find(|(name, _)| *name == key) else {
            self.ignored.push(format!("{section}.{key}"));
            return;
        };
        let Some(text) = self.scalar(value) else { return };
        let origin = format!("{section}.{key} {}", self.origin);
        match meaning {
            Key(ours) => self.layers.set_text(ours, &text, Rank::File, &origin),
            Seconds(ours) => legacy::seconds(ours, &text, Rank::File, &origin, self.layers),
            CassandraEnabled => legacy::cassandra_enabled(&text, Rank::File, &origin, self.layers),
            CacheType => legacy::cache_type(&text, Rank::File, &origin, self.layers),
            Nothing => {}
        }
    }

    /// A value as the environment would give it; lists are comma separated. Nothing when it is empty.
    fn scalar(&mut self, value: &Value) -> Option<String> {
        let text = match value {
            Value::Null | Value::Object(_) => return None,
            Value::Bool(yes) => yes.to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(text) => self.expand(text),
            Value::Array(items) => items.iter().filter_map(|item| self.scalar(item)).collect::<Vec<_>>().join(","),
        };
        Some(text).filter(|text| !text.is_empty())
    }

    /// Replaces `${VAR}` and `${VAR:-default}`. After parsing, so that a password cannot change the file's structure.
    fn expand(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((inside, tail)) = after.split_once('}') else { break };
            let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, text)| (name, Some(text)));
            out.push_str(before);
            match (self.env.get(name).filter(|value| !value.is_empty()), default) {
                (Some(value), _) => out.push_str(value),
                (None, Some(default)) => out.push_str(default),
                (None, None) => {
                    if !self.unset.iter().any(|known| known == name) {
                        self.unset.push(name.to_owned());
                    }
                }
            }
            rest = tail;
        }
        out.push_str(rest);
        out
    }
}

/// The values of a section with dotted names, in the order of their names.
fn flat(section: &Map<String, Value>) -> Vec<(String, &Value)> {
    let mut values = Vec::new();
    for (key, value) in section {
        match value {
            Value::Object(inner) => {
                values.extend(flat(inner).into_iter().map(|(name, value)| (format!("{key}.{name}"), value)))
            }
            _ => values.push((key.clone(), value)),
        }
    }
    values
}
