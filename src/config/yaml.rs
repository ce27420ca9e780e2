//! The YAML of existing deployments: `backend.cassandra.*` and `backend.cache.*`; the rest belongs to other programs.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    layers::{Layers, boolean},
    legacy,
    precedence::Precedence,
    variables::{self, ExpandError},
};

/// The keys of a section, and what each sets.
type KeyTable = &'static [(&'static str, KeyMapping)];

#[derive(Clone, Copy)]
enum KeyMapping {
    /// Another name for one of our keys.
    Key(&'static str),
    /// The same, given in seconds.
    Seconds(&'static str),
    /// Selects the store.
    CassandraEnabled,
    /// Selects or disables the latest keys.
    CacheType,
    /// Accepted without effect.
    Nothing,
}

use KeyMapping::{CacheType, CassandraEnabled, Key, Nothing, Seconds};

const CASSANDRA: KeyTable = &[
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

const CACHE: KeyTable = &[
    ("enabled", Key("latest.enabled")),
    ("type", CacheType),
    ("password", Key("redis.password")),
    ("ttl_seconds", Nothing),
    ("max_memory_mb", Nothing),
];

/// Sets the values of such a file.
pub fn apply(text: &str, path: &Path, env: &BTreeMap<String, String>, layers: &mut Layers) {
    let name = path.display();
    let root = match serde_saphyr::from_str::<Value>(text) {
        Ok(Value::Object(root)) => root,
        Err(error) if is_second_document(&error) => {
            let line = error.location().map_or(0, |location| location.line());
            return layers.problem(format!(
                "`{name}` line {line} begins a second YAML document; a configuration is one document, so take out what is \
                 behind the `---`, or give it a file of its own"
            ));
        }
        Ok(_) => return layers.problem(format!("`{name}` holds no mapping")),
        // The error's own display quotes the line, which may hold a password.
        Err(error) => {
            let line = error.location().map_or(0, |location| location.line());
            return layers.problem(format!("`{name}` line {line} is no YAML"));
        }
    };
    let mut file = YamlFile {
        origin: format!("in {name}"),
        env,
        layers,
        ignored: Vec::new(),
        unset: Vec::new(),
        disabled: false,
        source_texts: source_texts(text),
    };
    for (key, value) in &root {
        match (key.as_str(), value) {
            ("backend", Value::Object(backend)) => file.backend(backend),
            _ => file.ignored.push(key.clone()),
        }
    }
    let YamlFile { ignored, unset, .. } = file;
    if !ignored.is_empty() {
        layers.warn(format!("`{name}`: ignored, because it is not ours: {}", ignored.join(", ")));
    }
    if !unset.is_empty() {
        layers
            .warn(format!("`{name}`: variables that are not set, in a section that is disabled: {}", unset.join(", ")));
    }
}

fn is_second_document(error: &serde_saphyr::Error) -> bool {
    match error {
        serde_saphyr::Error::WithSnippet { error, .. } => is_second_document(error),
        other => matches!(other, serde_saphyr::Error::MultipleDocuments { .. }),
    }
}

struct YamlFile<'a> {
    origin: String,
    env: &'a BTreeMap<String, String>,
    layers: &'a mut Layers,
    ignored: Vec<String>,
    /// Variables without a value in a section that is disabled.
    unset: Vec<String>,
    /// Whether the current section is disabled.
    disabled: bool,
    /// Texts as they are written, of values that YAML may read as numbers.
    source_texts: BTreeMap<&'static str, String>,
}

/// A key of ours, and the origin of its value.
struct KeyTarget<'a> {
    key: &'a str,
    origin: String,
}

impl YamlFile<'_> {
    fn backend(&mut self, backend: &Map<String, Value>) {
        for (key, value) in backend {
            match (key.as_str(), value) {
                ("cassandra", Value::Object(section)) => self.cassandra(section),
                ("cache", Value::Object(section)) => self.cache(section),
                _ => self.ignored.push(format!("backend.{key}")),
            }
        }
    }

    fn target<'k>(&self, key: &'k str, old: &str) -> KeyTarget<'k> {
        KeyTarget { key, origin: format!("backend.{old} {}", self.origin) }
    }

    fn cassandra(&mut self, section: &Map<String, Value>) {
        let enabled = section.get("enabled").map(|value| (self.target("store.kind", "cassandra.enabled"), value));
        self.disabled = enabled.and_then(|(target, value)| self.text(&target, value)).is_some_and(|text| {
            // An invalid value is reported when the key is set.
            boolean(&text) == Ok(false)
        });
        let login = section.get("auth_provider").and_then(|auth| auth.get("enabled"));
        let target = self.target("store.cassandra.username", "cassandra.auth_provider.enabled");
        let login = login.is_none_or(|value| self.bool_of(&target, value).unwrap_or(true));
        for (key, value) in flatten(section) {
            if !login && key.starts_with("auth_provider.") {
                continue;
            }
            self.apply_entry("cassandra", CASSANDRA, &key, value);
        }
        self.disabled = false;
    }

    fn cache(&mut self, section: &Map<String, Value>) {
        let flat = flatten(section);
        // Two old keys set one of ours: the URL, and whether it is encrypted.
        let find = |name: &str| flat.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
        let ssl = ["ssl", "ssl.enabled"].iter().find_map(|name| Some((*name, find(name)?)));
        let ssl = ssl.and_then(|(name, value)| {
            let target = self.target("redis.url", &format!("cache.{name}"));
            self.bool_of(&target, value)
        });
        let target = self.target("redis.url", "cache.redis_url");
        let given = find("redis_url").and_then(|value| self.text(&target, value));
        let url = match (given, ssl) {
            (Some(url), Some(true)) => Some(encrypted(url.trim())),
            (None, Some(true)) => Some(encrypted(&crate::redis::Config::default().url)),
            (given, _) => given,
        };
        if let Some(url) = url {
            self.layers.set_text("redis.url", &url, Precedence::File, &target.origin);
        }
        // `enabled` first, because `type: memory` disables what it enabled.
        for (key, value) in flat {
            match key.as_str() {
                "redis_url" | "ssl" | "ssl.enabled" => {}
                key if key.starts_with("connection_pool") => {}
                key => self.apply_entry("cache", CACHE, key, value),
            }
        }
    }

    fn apply_entry(&mut self, section: &str, table: KeyTable, key: &str, value: &Value) {
        let old = format!("{section}.{key}");
        let Some((_, mapping)) = table.iter().find(|(name, _)| *name == key) else {
            self.ignored.push(format!("backend.{old}"));
            return;
        };
        let written = match value {
            Value::Bool(_) | Value::Number(_) => self.source_texts.get(&*old).cloned().map(Value::from),
            _ => None,
        };
        let value = written.as_ref().unwrap_or(value);
        match mapping {
            Key(ours) => {
                let target = self.target(ours, &old);
                let items: Option<Vec<String>> = match value {
                    Value::Array(items) => Some(items.iter().filter_map(|item| self.text(&target, item)).collect()),
                    value => self.text(&target, value).map(|text| vec![text]),
                };
                if let Some(items) = items.filter(|items| !items.is_empty()) {
                    self.layers.set_items(ours, &items, Precedence::File, &target.origin);
                }
            }
            Seconds(ours) => self.with_text(ours, &old, value, |text, target, layers| {
                legacy::seconds(target.key, text, Precedence::File, &target.origin, layers)
            }),
            CassandraEnabled => self.with_text("store.kind", &old, value, |text, target, layers| {
                legacy::cassandra_enabled(text, Precedence::File, &target.origin, layers)
            }),
            // The environment overrides the file, also with `redis`, which sets nothing.
            CacheType if legacy::cache_type_of(self.env).is_some() => {}
            CacheType => self.with_text("latest.enabled", &old, value, |text, target, layers| {
                legacy::cache_type(text, Precedence::File, &target.origin, layers)
            }),
            Nothing => {}
        }
    }

    fn with_text(&mut self, key: &str, old: &str, value: &Value, lay: impl FnOnce(&str, &KeyTarget<'_>, &mut Layers)) {
        let target = self.target(key, old);
        if let Some(text) = self.text(&target, value) {
            lay(&text, &target, self.layers);
        }
    }

    fn bool_of(&mut self, target: &KeyTarget<'_>, value: &Value) -> Option<bool> {
        let text = self.text(target, value)?;
        boolean(&text)
            .map_err(|problem| self.layers.problem(format!("`{}` ({}) {problem}", target.key, target.origin)))
            .ok()
    }

    /// A value as the environment would have it, lists separated by commas. `None` if it is empty or invalid.
    ///
    /// Variables are expanded after parsing, so that a password cannot change the structure of the file.
    fn text(&mut self, target: &KeyTarget<'_>, value: &Value) -> Option<String> {
        let text = match value {
            Value::Null | Value::Object(_) => return None,
            Value::Bool(yes) => yes.to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(text) => self.expand(target, text)?,
            Value::Array(items) => {
                items.iter().filter_map(|item| self.text(target, item)).collect::<Vec<_>>().join(",")
            }
        };
        Some(text).filter(|text| !text.is_empty())
    }

    fn expand(&mut self, target: &KeyTarget<'_>, text: &str) -> Option<String> {
        let secret =
            ["password", "username", "contact_points", "redis.url"].iter().any(|end| target.key.ends_with(end));
        let problem = match variables::expand(text, self.env) {
            Ok(text) => return Some(text),
            Err(ExpandError::Unset { name, bare }) if self.disabled => {
                // A bare name may be part of a password, and is not shown.
                let shown = if bare && secret { format!("one of `{}`", target.key) } else { name };
                if !self.unset.contains(&shown) {
                    self.unset.push(shown);
                }
                return None;
            }
            // The dollar sign and the name may be part of a password.
            Err(ExpandError::Unset { bare: true, .. }) if secret => {
                "names a variable that is not set behind a `$`; write `$$` for a dollar sign".to_owned()
            }
            Err(ExpandError::Unset { name, bare }) => {
                let dollar = if bare { ", and `$$` for a dollar sign" } else { "" };
                format!(
                    "needs the variable `{name}`, which is not set and has no default; write `${{{name}:-...}}` for \
                     one{dollar}"
                )
            }
            Err(ExpandError::Syntax(what)) => format!("holds {what}; write `$$` for a dollar sign"),
        };
        self.layers.problem(format!("`{}` ({}) {problem}", target.key, target.origin));
        None
    }
}

/// Texts that may look like numbers: a password `0123` is not 123.
fn source_texts(text: &str) -> BTreeMap<&'static str, String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Root {
        backend: Option<Backend>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Backend {
        cache: Option<Login>,
        cassandra: Option<Cluster>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Cluster {
        keyspace: Option<String>,
        auth_provider: Option<Login>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Login {
        username: Option<String>,
        password: Option<String>,
    }
    // If one of them is no text, none is a number, and none is needed.
    let root: Root = serde_saphyr::from_str(text).unwrap_or_default();
    let backend = root.backend.unwrap_or_default();
    let (cache, cassandra) = (backend.cache.unwrap_or_default(), backend.cassandra.unwrap_or_default());
    let auth = cassandra.auth_provider.unwrap_or_default();
    [
        ("cache.password", cache.password),
        ("cassandra.keyspace", cassandra.keyspace),
        ("cassandra.auth_provider.username", auth.username),
        ("cassandra.auth_provider.password", auth.password),
    ]
    .into_iter()
    .filter_map(|(key, text)| Some((key, text?)))
    .collect()
}

fn encrypted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    match scheme.strip_prefix("redis").or(scheme.strip_prefix("valkey")) {
        // The scheme of a socket stays: it has no TLS, and `redis.tls` says so.
        Some(kind @ ("" | "-sentinel" | "-cluster")) => format!("rediss{kind}://{rest}"),
        _ => url.to_owned(),
    }
}

/// The values of a section with dotted names, in the order of their names.
fn flatten(section: &Map<String, Value>) -> Vec<(String, &Value)> {
    let mut values = Vec::new();
    for (key, value) in section {
        match value {
            Value::Object(inner) => {
                values.extend(flatten(inner).into_iter().map(|(name, value)| (format!("{key}.{name}"), value)))
            }
            _ => values.push((key.clone(), value)),
        }
    }
    values
}
