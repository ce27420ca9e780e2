//! Description of the store's server for the status page and metrics; an embedded store has none.

/// A server, or a cluster of them.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// Configured contact points.
    pub contact_points: Vec<String>,
    /// Port of every node.
    pub port: u16,
    /// Keyspace.
    pub keyspace: String,
    /// Cluster name, while connected.
    pub name: Option<String>,
    /// Server version, while connected.
    pub version: Option<String>,
    /// Known nodes.
    pub nodes: Vec<Node>,
    /// Replication of the keyspace, while known.
    pub replication: Option<Replication>,
    /// The tables of the keyspace.
    pub tables: Vec<String>,
    /// Why it does not answer; `None` while it does.
    pub error: Option<String>,
    /// Whether a connection was ever established.
    pub connected_before: bool,
}

/// One node.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "standard terms of a cluster")]
pub struct Node {
    pub address: String,
    pub datacenter: Option<String>,
    pub rack: Option<String>,
    pub is_up: bool,
}

/// Replication of the keyspace.
#[derive(Clone, Debug)]
pub struct Replication {
    /// Name of the replication strategy.
    pub strategy: String,
    /// Replicas in all datacenters together.
    pub factor: usize,
}
