//! Replication of the keyspace against the nodes that there are, and whether the consistency can be met.

use std::collections::BTreeMap;

use scylla::client::session::Session;
use serde_json::Value;

use super::{
    AREA, Finding, Report,
    nodes::{Datacenter, Nodes},
    not_permitted, rows,
};
use crate::store::cassandra::Config;

/// Copies of each row, by datacenter; of `SimpleStrategy` under no name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Replication {
    strategy: String,
    copies: BTreeMap<String, usize>,
}

/// Examines the keyspace. Returns how many copies a row has, in the datacenter that counts; `None`: there is no keyspace.
pub(super) async fn examine(config: &Config, session: &Session, nodes: &Nodes, report: &mut Report) -> Option<usize> {
    let query = format!(
        "SELECT JSON replication, durable_writes FROM system_schema.keyspaces WHERE keyspace_name = '{}'",
        config.keyspace
    );
    let row = match rows(session, &query, None).await {
        Ok(mut rows) => rows.pop(),
        Err(error) => {
            report.push(not_permitted("the replication of the keyspace", "system_schema.keyspaces", error));
            return None;
        }
    };
    let Some(row) = row else {
        let what = format!(
            "keyspace `{}` does not exist: rows wait in the spool, and are lost once it is full",
            config.keyspace
        );
        report
            .push(Finding::stops(AREA, what).fix("`cascor-ingest schema apply`").evidence(format!("{query}: no row")));
        return None;
    };
    let replication = Replication::of(row.get("replication")?)?;
    report.saw(format!("keyspace `{}`: {}", config.keyspace, replication.describe()));
    if row.get("durable_writes") == Some(&Value::Bool(false)) {
        let what = format!(
            "keyspace `{}` has no commit log: a node that stops loses the rows that it has acknowledged",
            config.keyspace
        );
        let fix = format!("`ALTER KEYSPACE {} WITH durable_writes = true`", config.keyspace);
        report.push(Finding::loses(AREA, what).fix(fix).evidence("durable_writes = false"));
    }
    let known = Known { config, replication: &replication, nodes };
    report.extend(known.unknown_datacenter());
    let unmet = known.consistency();
    if unmet.is_empty() {
        report.extend(known.copies());
    }
    report.extend(unmet);
    Some(replication.factor(config.local_datacenter.as_deref()))
}

impl Replication {
    fn of(value: &Value) -> Option<Self> {
        let map = value.as_object()?;
        let class = map.get("class")?.as_str()?;
        let strategy = class.rsplit('.').next()?.to_owned();
        let mut copies = BTreeMap::new();
        for (name, value) in map.iter().filter(|(name, _)| *name != "class") {
            // `3/1`: three copies, one of them transient.
            let factor = value.as_str()?.split('/').next()?.parse().ok()?;
            let name = if name == "replication_factor" { "" } else { name };
            copies.insert(name.to_owned(), factor);
        }
        Some(Self { strategy, copies })
    }

    fn describe(&self) -> String {
        let copies = self.copies.iter().map(|(name, n)| match name.as_str() {
            "" => format!("{n}"),
            name => format!("{name}={n}"),
        });
        format!("{}:{}", self.strategy, copies.collect::<Vec<_>>().join(","))
    }

    /// As the store counts them.
    fn factor(&self, datacenter: Option<&str>) -> usize {
        let preferred = datacenter.and_then(|name| self.copies.get(name));
        preferred.or_else(|| self.copies.values().max()).copied().unwrap_or(1)
    }
}

struct Known<'a> {
    config: &'a Config,
    replication: &'a Replication,
    nodes: &'a Nodes,
}

impl Known<'_> {
    fn evidence(&self) -> String {
        let nodes = self
            .nodes
            .iter()
            .map(|(name, datacenter)| format!("{name}: {} of {} nodes up", datacenter.up, datacenter.nodes));
        format!("replication {}; {}", self.replication.describe(), nodes.collect::<Vec<_>>().join(", "))
    }

    fn all(&self) -> Datacenter {
        let sum = |of: fn(&Datacenter) -> usize| self.nodes.values().map(of).sum();
        Datacenter { nodes: sum(|datacenter| datacenter.nodes), up: sum(|datacenter| datacenter.up) }
    }

    /// The nodes on which the copies of this entry lie.
    fn place(&self, name: &str) -> Datacenter {
        if name.is_empty() { self.all() } else { self.nodes.get(name).copied().unwrap_or_default() }
    }

    fn alter(&self) -> String {
        let each: Vec<_> =
            self.nodes.iter().map(|(name, datacenter)| format!(", '{name}': {}", datacenter.nodes.min(3))).collect();
        format!(
            "`ALTER KEYSPACE {} WITH replication = {{'class': 'NetworkTopologyStrategy'{}}}`, then `nodetool repair --full`",
            self.config.keyspace,
            each.concat()
        )
    }

    fn unknown_datacenter(&self) -> Option<Finding> {
        let unknown =
            self.replication.copies.keys().find(|name| !name.is_empty() && !self.nodes.contains_key(*name))?;
        let known: Vec<_> = self.nodes.keys().map(String::as_str).collect();
        let what = format!(
            "the keyspace keeps copies in a datacenter `{unknown}`, which the cluster does not have ({})",
            known.join(", ")
        );
        Some(Finding::stops(AREA, what).fix(self.alter()).evidence(self.evidence()))
    }

    /// Whether reads and writes find as many copies as they ask for.
    fn consistency(&self) -> Vec<Finding> {
        let factor = self.replication.factor(self.config.local_datacenter.as_deref());
        let default = if factor <= 1 { "LOCAL_ONE" } else { "LOCAL_QUORUM" };
        let sides = [("write", &self.config.consistency_write), ("read", &self.config.consistency_read)];
        let mut findings: Vec<Finding> = Vec::new();
        for (side, level) in sides {
            let level = level.as_deref().unwrap_or(default).to_ascii_uppercase();
            let (needed, there) = self.needed(&level);
            if needed <= there || !findings.is_empty() {
                continue;
            }
            let what = format!(
                "consistency {level} cannot be met: it asks for {needed} copies of a row, and {there} can be reached; {}",
                if side == "write" {
                    "rows wait in the spool, and are lost once it is full"
                } else {
                    "nothing can be read"
                }
            );
            let is_configured = match side {
                "write" => self.config.consistency_write.is_some(),
                _ => self.config.consistency_read.is_some(),
            };
            let fix = if self.all().up < self.all().nodes {
                "start the nodes that are down (`nodetool status`)".to_owned()
            } else if is_configured {
                format!("remove `store.cassandra.consistency_{side}`, or keep more copies")
            } else {
                self.alter()
            };
            findings.push(Finding::stops(AREA, what).fix(fix).evidence(self.evidence()));
        }
        findings
    }

    /// How many copies this consistency asks for, and how many can be reached. Any node may be one that is down.
    fn needed(&self, level: &str) -> (usize, usize) {
        let quorum = |copies: usize| copies / 2 + 1;
        let reachable = |name: &str, copies: usize| {
            let place = self.place(name);
            copies.min(place.nodes).saturating_sub(place.nodes - place.up)
        };
        let copies = || self.replication.copies.iter();
        let all = copies().map(|(_, n)| n).sum::<usize>();
        let all_reachable = copies().map(|(name, n)| reachable(name, *n)).sum::<usize>();
        let local = match self.config.local_datacenter.as_deref() {
            Some(name) => copies().find(|(known, _)| *known == name).or_else(|| copies().next()),
            None => copies().max_by_key(|(_, n)| **n),
        };
        let (local, local_reachable) = local.map_or((1, 0), |(name, n)| (*n, reachable(name, *n)));
        match level {
            "ANY" => (0, 0),
            "ONE" => (1, all_reachable),
            "TWO" => (2, all_reachable),
            "THREE" => (3, all_reachable),
            "QUORUM" => (quorum(all), all_reachable),
            "ALL" => (all, all_reachable),
            "LOCAL_ONE" => (1, local_reachable),
            "LOCAL_QUORUM" => (quorum(local), local_reachable),
            "EACH_QUORUM" => {
                let worst = copies().map(|(name, n)| (quorum(*n), reachable(name, *n)));
                worst.max_by_key(|(needed, there)| needed.saturating_sub(*there)).unwrap_or((1, 0))
            }
            _ => (0, 0),
        }
    }

    fn copies(&self) -> Option<Finding> {
        let all = self.all().nodes;
        let lacking =
            self.replication.copies.iter().find(|(name, n)| **n > self.place(name).nodes && self.place(name).nodes > 0);
        if let Some((_, copies)) = lacking {
            let what =
                format!("the keyspace asks for {copies} copies of each row, and there are fewer nodes to keep them");
            return Some(
                Finding::degrades(AREA, what).fix(format!("add nodes, or {}", self.alter())).evidence(self.evidence()),
            );
        }
        if self.replication.strategy == "SimpleStrategy" && self.nodes.len() > 1 {
            let what = "SimpleStrategy ignores datacenters: all copies of a row may lie in one of them";
            return Some(Finding::degrades(AREA, what).fix(self.alter()).evidence(self.evidence()));
        }
        let is_single =
            self.replication.copies.values().all(|copies| *copies <= 1) && self.replication.copies.len() <= 1;
        is_single.then(|| {
            let finding = if all > 1 {
                Finding::loses(
                    AREA,
                    "each row has one copy: a node that is lost takes its rows with it, although the cluster has more nodes",
                )
                .fix(self.alter())
            } else {
                Finding::advice(AREA, "each row has one copy, on the only node: when it is lost, all rows are")
                    .fix("back it up (`nodetool snapshot`), or add nodes and copies")
            };
            finding.evidence(self.evidence())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    /// A keyspace, the nodes (name, all, up), a consistency for writing, and what is found first.
    type Case =
        (&'static str, &'static [(&'static str, usize, usize)], Option<&'static str>, Option<(Level, &'static str)>);

    const NTS: &str = "org.apache.cassandra.locator.NetworkTopologyStrategy";

    #[test]
    fn replication_is_held_against_the_nodes() {
        let cases: &[Case] = &[
            (r#""dc1":"3""#, &[("dc1", 3, 3)], None, None),
            (r#""dc1":"3""#, &[("dc1", 3, 2)], None, None),
            (r#""dc1":"3""#, &[("dc1", 3, 1)], None, Some((Level::Fault, "LOCAL_QUORUM cannot be met"))),
            (r#""dc1":"3""#, &[("dc1", 3, 2)], Some("ALL"), Some((Level::Fault, "ALL cannot be met"))),
            (r#""dc1":"3""#, &[("dc1", 1, 1)], None, Some((Level::Fault, "LOCAL_QUORUM cannot be met"))),
            (r#""dc1":"3""#, &[("dc1", 2, 2)], None, Some((Level::Fault, "fewer nodes"))),
            (r#""dc1":"1""#, &[("dc1", 1, 1)], None, Some((Level::Advice, "only node"))),
            (r#""dc1":"1""#, &[("dc1", 3, 3)], None, Some((Level::Fault, "one copy"))),
            (
                r#""dc1":"3","dc2":"3""#,
                &[("dc1", 3, 3), ("dc2", 3, 1)],
                Some("EACH_QUORUM"),
                Some((Level::Fault, "EACH_QUORUM")),
            ),
            (r#""dcx":"3""#, &[("dc1", 3, 3)], None, Some((Level::Fault, "does not have"))),
        ];
        for (copies, datacenters, write, expected) in cases {
            let map = serde_json::from_str(&format!(r#"{{"class":"{NTS}",{copies}}}"#)).unwrap();
            let replication = Replication::of(&map).unwrap();
            let nodes: Nodes = datacenters
                .iter()
                .map(|(name, nodes, up)| ((*name).to_owned(), Datacenter { nodes: *nodes, up: *up }))
                .collect();
            let config = Config { consistency_write: write.map(str::to_owned), ..Config::default() };
            let known = Known { config: &config, replication: &replication, nodes: &nodes };
            let found = known.unknown_datacenter().into_iter().chain(known.consistency()).chain(known.copies()).next();
            match (found, expected) {
                (None, None) => {}
                (Some(found), Some((level, word))) => {
                    assert!(found.level == *level && found.what.contains(word), "{copies} {datacenters:?}: {found:?}");
                }
                (found, _) => panic!("{copies} {datacenters:?}: {found:?}"),
            }
        }
    }
}
