//! Parses replications such as `SimpleStrategy:1` and `NetworkTopologyStrategy:dc1=3,dc2=2`.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Replication of a keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Replication {
    /// This many copies on any nodes: for one datacenter.
    Simple(u32),
    /// This many copies in each datacenter.
    NetworkTopology(BTreeMap<String, u32>),
}

const EXPECTED: &str = "write `SimpleStrategy:1` or `NetworkTopologyStrategy:dc1=3,dc2=2`";

impl FromStr for Replication {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (strategy, rest) = text
            .trim()
            .split_once(':')
            .ok_or_else(|| format!("`{}` is not a replication; {EXPECTED}", text.escape_debug()))?;
        match strategy.trim() {
            name if name.eq_ignore_ascii_case("SimpleStrategy") => factor(rest).map(Self::Simple),
            name if name.eq_ignore_ascii_case("NetworkTopologyStrategy") => {
                datacenters(rest).map(Self::NetworkTopology)
            }
            other => Err(format!("`{}` is not a replication strategy; {EXPECTED}", other.escape_debug())),
        }
    }
}

fn factor(text: &str) -> Result<u32, String> {
    match text.trim().parse() {
        Ok(n) if (1..=100).contains(&n) => Ok(n),
        _ => Err(format!("`{}` is not a replication factor (1 to 100); {EXPECTED}", text.trim().escape_debug())),
    }
}

fn datacenters(text: &str) -> Result<BTreeMap<String, u32>, String> {
    let mut map = BTreeMap::new();
    for part in text.split(',') {
        let (name, n) = part
            .split_once('=')
            .ok_or_else(|| format!("`{}` is not `datacenter=factor`; {EXPECTED}", part.trim().escape_debug()))?;
        let name = name.trim();
        if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ')) {
            return Err(format!("`{}` is not the name of a datacenter", name.escape_debug()));
        }
        if map.insert(name.to_owned(), factor(n)?).is_some() {
            return Err(format!("datacenter `{name}` is named twice"));
        }
    }
    Ok(map)
}

impl TryFrom<String> for Replication {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Replication> for String {
    fn from(replication: Replication) -> Self {
        replication.to_string()
    }
}

impl Replication {
    /// As a CQL map.
    pub fn to_cql(&self) -> String {
        match self {
            Self::Simple(n) => format!("{{'class': 'SimpleStrategy', 'replication_factor': {n}}}"),
            Self::NetworkTopology(map) => {
                let pairs: String = map.iter().map(|(name, n)| format!(", '{name}': {n}")).collect();
                format!("{{'class': 'NetworkTopologyStrategy'{pairs}}}")
            }
        }
    }
}

impl fmt::Display for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(n) => write!(f, "SimpleStrategy:{n}"),
            Self::NetworkTopology(map) => {
                let pairs: Vec<String> = map.iter().map(|(name, n)| format!("{name}={n}")).collect();
                write!(f, "NetworkTopologyStrategy:{}", pairs.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replications_are_read_and_written_back() {
        for (text, cql) in [
            ("SimpleStrategy:1", "{'class': 'SimpleStrategy', 'replication_factor': 1}"),
            ("NetworkTopologyStrategy:dc1=3,dc-2=2", "{'class': 'NetworkTopologyStrategy', 'dc-2': 2, 'dc1': 3}"),
        ] {
            let replication: Replication = text.parse().unwrap();
            assert_eq!(replication.to_cql(), cql);
            assert_eq!(replication.to_string().parse(), Ok(replication));
        }
    }

    #[test]
    fn a_wrong_replication_says_what_is_wrong() {
        for (text, word) in [
            ("3", "not a replication"),
            ("Simple:1", "strategy"),
            ("SimpleStrategy:0", "factor"),
            ("SimpleStrategy:x", "factor"),
            ("SimpleStrategy:1000", "factor"),
            ("NetworkTopologyStrategy:", "datacenter=factor"),
            ("NetworkTopologyStrategy:dc1", "datacenter=factor"),
            ("NetworkTopologyStrategy:=3", "name of a datacenter"),
            ("NetworkTopologyStrategy:a'b=3", "name of a datacenter"),
            ("NetworkTopologyStrategy:dc1=3,dc1=2", "twice"),
        ] {
            let error = text.parse::<Replication>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
