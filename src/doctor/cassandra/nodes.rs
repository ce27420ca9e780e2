//! The nodes: whether they answer, their versions, their clocks, and whether they agree about the schema.

use std::collections::BTreeMap;

use scylla::client::session::Session;
use serde_json::Value;
use uuid::Uuid;

use super::{AREA, Finding, Report, rows, text};
use crate::{
    doctor::redis::clock_finding,
    units::{self, Micros},
};

/// Difference between the clocks of two nodes from which the later of two writes may lose.
const NODE_SKEW: i64 = 500_000;

/// The nodes of one datacenter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Datacenter {
    pub(super) nodes: usize,
    pub(super) up: usize,
}

/// Datacenters by name.
pub(super) type Nodes = BTreeMap<String, Datacenter>;

/// What one node says of itself.
struct Node {
    address: String,
    version: String,
    schema: String,
    /// Our clock less its own, with half the time of asking.
    skew: Option<(i64, i64)>,
}

pub(super) async fn examine(session: &Session, report: &mut Report) -> Nodes {
    let state = session.get_cluster_state();
    let (mut datacenters, mut nodes, mut down) = (Nodes::new(), Vec::new(), Vec::new());
    for known in state.get_nodes_info() {
        let datacenter = datacenters.entry(known.datacenter.clone().unwrap_or_default()).or_default();
        datacenter.nodes += 1;
        let address = known.address.ip().to_string();
        if known.is_connected() {
            datacenter.up += 1;
            match ask(session, known.host_id, address.clone()).await {
                Ok(node) => nodes.push(node),
                Err(error) => {
                    let what = format!("node {address} could not be asked for its version, schema and clock");
                    report.push(Finding::unknown(AREA, what).evidence(error));
                }
            }
        } else {
            down.push(address);
        }
    }
    if !down.is_empty() {
        let what = "nodes of the cluster do not answer: one more may stop reading and writing";
        let evidence = format!("no connection to {}", down.join(", "));
        report.push(
            Finding::degrades(AREA, what).fix("`nodetool status` names their state; start them").evidence(evidence),
        );
    }
    let versions: Vec<_> = nodes.iter().map(|node| node.version.as_str()).collect();
    let places = datacenters.iter().map(|(name, datacenter)| format!("{} in {name}", datacenter.nodes));
    report.saw(format!(
        "Cassandra {} (cluster `{}`, nodes: {})",
        versions.first().unwrap_or(&"of unknown version"),
        state.cluster_name(),
        places.collect::<Vec<_>>().join(", ")
    ));
    report.extend(versions_finding(&versions));
    report.extend(schema_finding(&nodes));
    report.extend(clock_findings(&nodes));
    datacenters
}

async fn ask(session: &Session, host_id: Uuid, address: String) -> Result<Node, String> {
    let query = "SELECT JSON release_version, schema_version, toUnixTimestamp(now()) AS at FROM system.local";
    // The first answer of a node takes longer.
    let _ = rows(session, "SELECT JSON key FROM system.local", Some(host_id)).await?;
    let before: Micros = units::now();
    let row = rows(session, query, Some(host_id)).await?.pop().unwrap_or_default();
    let after = units::now();
    let half = (after - before) / 2;
    let at = row.get("at").and_then(Value::as_i64);
    Ok(Node {
        address,
        version: text(&row, "release_version").to_owned(),
        schema: text(&row, "schema_version").to_owned(),
        // Its clock is told in milliseconds.
        skew: at.map(|millis| (before + half - millis * 1_000, half + 1_000)),
    })
}

fn major_minor(version: &str) -> (u32, u32) {
    let mut parts = version.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn versions_finding(versions: &[&str]) -> Option<Finding> {
    let oldest = versions.iter().min_by_key(|version| major_minor(version))?;
    let evidence = format!("release_version: {}", versions.join(", "));
    if major_minor(oldest) < (4, 1) {
        let what = "Cassandra is older than 4.1, with which nothing was tried";
        return Some(Finding::degrades(AREA, what).fix("use Cassandra 4.1 or 5.0").evidence(evidence));
    }
    versions.iter().any(|version| major_minor(version) != major_minor(oldest)).then(|| {
        let what = "the nodes run different versions: `schema apply` waits until all have the same";
        Finding::advice(AREA, what).fix("finish the upgrade of the cluster").evidence(evidence)
    })
}

fn schema_finding(nodes: &[Node]) -> Option<Finding> {
    let first = nodes.first()?;
    nodes.iter().any(|node| node.schema != first.schema).then(|| {
        let what = "the nodes disagree about the schema: writes to some of them fail or vanish";
        let evidence: Vec<_> = nodes.iter().map(|node| format!("{} has {}", node.address, node.schema)).collect();
        let fix = "`nodetool describecluster` on each node; restart those that stay behind";
        Finding::loses(AREA, what).fix(fix).evidence(evidence.join(", "))
    })
}

/// The nodes against each other, then against this machine.
fn clock_findings(nodes: &[Node]) -> Vec<Finding> {
    let skews = || nodes.iter().filter_map(|node| Some((node, node.skew?)));
    let Some((latest, (high, _))) = skews().max_by_key(|(_, (skew, _))| *skew) else { return Vec::new() };
    let Some((earliest, (low, _))) = skews().min_by_key(|(_, (skew, _))| *skew) else { return Vec::new() };
    let error = skews().map(|(_, (_, error))| error).max().unwrap_or(0);
    let mut findings = Vec::new();
    if high - low > NODE_SKEW + 2 * error {
        let what = "the clocks of the nodes differ: of two writes of one row the older may win";
        let evidence = format!("{} is {:.1} s behind {}", latest.address, (high - low) as f64 / 1e6, earliest.address);
        findings.push(
            Finding::loses(AREA, what)
                .fix("synchronise the clocks of the nodes (chrony, systemd-timesyncd)")
                .evidence(evidence),
        );
    }
    let ours = if high.abs() > low.abs() { (latest, high) } else { (earliest, low) };
    findings.extend(clock_finding(AREA, &format!("Cassandra ({})", ours.0.address), ours.1));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn node(address: &str, schema: &str, skew: i64) -> Node {
        Node { address: address.into(), version: "5.0.9".into(), schema: schema.into(), skew: Some((skew, 1_000)) }
    }

    #[test]
    fn versions_schemas_and_clocks_are_compared() {
        assert!(versions_finding(&["5.0.9", "5.0.8"]).is_none() && versions_finding(&[]).is_none());
        assert_eq!(versions_finding(&["5.0.9", "4.1.10"]).unwrap().level, Level::Advice);
        assert_eq!(versions_finding(&["5.0.9", "4.0.1"]).unwrap().level, Level::Fault);
        assert!(schema_finding(&[node("a", "1", 0), node("b", "1", 0)]).is_none());
        assert!(schema_finding(&[node("a", "1", 0), node("b", "2", 0)]).is_some());
        for (skews, levels) in [
            (&[0, 100_000][..], &[][..]),
            (&[0, 1_000_000], &[Level::Fault]),
            (&[-3_000_000, -3_000_000], &[Level::Advice]),
            (&[0, 400_000_000], &[Level::Fault, Level::Fault]),
            (&[], &[]),
        ] {
            let nodes: Vec<_> = skews.iter().map(|skew| node("a", "1", *skew)).collect();
            let found: Vec<_> = clock_findings(&nodes).iter().map(|finding| finding.level).collect();
            assert_eq!(found, levels, "{skews:?}");
        }
    }
}
