//! What every section of the configuration uses: its defaults, which the shipped file states and nothing else, and its checks.

use std::sync::LazyLock;

use serde::de::DeserializeOwned;
use toml::Value;

static SHIPPED: LazyLock<Value> =
    LazyLock::new(|| toml::from_str(include_str!("../conf/cascor-ingest.toml")).expect("the shipped file is TOML"));

/// The defaults of a section such as `store.cassandra`; of the whole configuration for an empty name.
///
/// # Panics
/// When the shipped file does not set every key of the section, which the tests of the configuration would show.
pub fn defaults<T: DeserializeOwned>(name: &str) -> T {
    let keys = name.split('.').filter(|key| !key.is_empty());
    let section = keys.fold(&*SHIPPED, |table, key| &table[key]);
    section.clone().try_into().expect("the shipped file sets every key to a value that is valid")
}

/// Adds the problem unless the settings are as they must be.
pub fn require(problems: &mut Vec<String>, holds: bool, problem: impl Into<String>) {
    if !holds {
        problems.push(problem.into());
    }
}
