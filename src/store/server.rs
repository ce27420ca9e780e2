//! What a store's server says about itself, for people and for dashboards; an embedded store has none.

/// A server, or a cluster of them.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// Where it is looked for.
    pub contact_points: Vec<String>,
    /// Port of every node.
    pub port: u16,
    /// Where the tables are.
    pub keyspace: String,
    /// What the cluster calls itself, while it answers.
    pub name: Option<String>,
    /// Its version, while it answers.
    pub version: Option<String>,
    /// Its nodes, as far as they are known.
    pub nodes: Vec<Node>,
    /// How the keyspace is replicated, while that is known.
    pub replication: Option<Replication>,
    /// The tables of the keyspace.
    pub tables: Vec<String>,
    /// Why it does not answer; absent: it does.
    pub error: Option<String>,
    /// Whether it has answered before.
    pub connected_before: bool,
}

/// One node.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the words of every cluster")]
pub struct Node {
    pub address: String,
    pub datacenter: Option<String>,
    pub rack: Option<String>,
    pub is_up: bool,
}

/// How many replicas there are of a row.
#[derive(Clone, Debug)]
pub struct Replication {
    /// The name of the rule.
    pub strategy: String,
    /// Replicas in all datacenters together.
    pub factor: usize,
}
