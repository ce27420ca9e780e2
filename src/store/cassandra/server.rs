//! Description of the cluster. The driver knows most of it; one small query reads the rest.

use std::time::Duration;

use scylla::{
    client::session::Session,
    cluster::metadata::{Keyspace, Strategy},
    statement::Statement,
};
use tokio::time::timeout;

use super::{CassandraStore, session::State};
use crate::{
    logging::Chain,
    store::{
        Store, StoreError,
        server::{Node, Replication, Server},
    },
};

/// Query timeout: the status page waits a few seconds at most.
const DESCRIBE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The current state of the cluster.
pub(super) async fn describe(store: &CassandraStore) -> Server {
    let config = &store.config;
    let mut server = Server {
        contact_points: config.contact_points.clone(),
        port: config.port,
        keyspace: config.keyspace.clone(),
        // The count grows with every lost connection.
        connected_before: store.restart_count() > 0,
        ..Server::default()
    };
    let live = match &*store.state.borrow() {
        State::Up(live) => live.clone(),
        State::Down { failure, .. } => {
            server.error = Some(failure.to_string());
            return server;
        }
    };
    server.connected_before = true;
    let state = live.session.get_cluster_state();
    server.name = Some(state.cluster_name().to_owned()).filter(|name| !name.is_empty());
    let node = |node: &scylla::cluster::Node| Node {
        address: node.address.ip().to_string(),
        datacenter: node.datacenter.clone(),
        rack: node.rack.clone(),
        is_up: node.is_connected(),
    };
    server.nodes = state.get_nodes_info().iter().map(|known| node(known)).collect();
    server.nodes.sort_by(|a, b| a.address.cmp(&b.address));
    if let Some(keyspace) = state.get_keyspace(&config.keyspace) {
        server.replication = Some(replication(keyspace));
        server.tables = keyspace.tables.keys().cloned().collect();
        server.tables.sort_unstable();
    }
    let asked = async {
        store.ping().await?;
        Ok::<_, StoreError>(version(&live.session).await)
    };
    match timeout(DESCRIBE_TIMEOUT, asked).await {
        Ok(Ok(version)) => server.version = version,
        Ok(Err(error)) => server.error = Some(Chain(&error).to_string()),
        Err(_) => server.error = Some(format!("no answer within {DESCRIBE_TIMEOUT:?}")),
    }
    server
}

fn replication(keyspace: &Keyspace) -> Replication {
    let (strategy, factor) = match &keyspace.strategy {
        Strategy::SimpleStrategy { replication_factor } => ("SimpleStrategy", *replication_factor),
        Strategy::NetworkTopologyStrategy { datacenter_repfactors } => {
            ("NetworkTopologyStrategy", datacenter_repfactors.values().sum())
        }
        Strategy::LocalStrategy => ("LocalStrategy", 1),
        Strategy::Other { name, data } => {
            let factor = data.get("replication_factor").and_then(|factor| factor.parse().ok());
            return Replication { strategy: name.clone(), factor: factor.unwrap_or(1) };
        }
        _ => ("unknown", 1),
    };
    Replication { strategy: strategy.to_owned(), factor }
}

/// Server version; a role without permission to read them does not mark the cluster as down.
async fn version(session: &Session) -> Option<String> {
    let query = Statement::new("SELECT release_version FROM system.local");
    let rows = session.query_unpaged(query, ()).await.ok()?.into_rows_result().ok()?;
    rows.maybe_first_row::<(Option<String>,)>().ok()??.0
}
