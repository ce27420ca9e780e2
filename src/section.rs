//! What every section of the configuration uses: its defaults, which the shipped file states and nothing else, and its checks.

use std::sync::LazyLock;

use figment::{
    providers::{Format, Toml},
    value::Value,
};
use serde::de::DeserializeOwned;

// A value of the type of which the settings are made, too: the code that reads every section exists once, not for each type.
static SHIPPED: LazyLock<Value> =
    LazyLock::new(|| Toml::from_str(include_str!("../conf/cascor-ingest.toml")).expect("the shipped file is TOML"));

/// The defaults of a section such as `store.cassandra`; of the whole configuration for an empty name.
///
/// # Panics
/// When the shipped file does not set every key of the section, which the tests of the configuration would show.
pub fn defaults<T: DeserializeOwned>(name: &str) -> T {
    let section = SHIPPED.find_ref(name).expect("the shipped file has every section");
    T::deserialize(section).expect("the shipped file sets every key to a value that is valid")
}

/// Adds the problem unless the settings are as they must be.
pub fn require(problems: &mut Vec<String>, holds: bool, problem: impl Into<String>) {
    if !holds {
        problems.push(problem.into());
    }
}
