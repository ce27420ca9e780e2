//! The Cassandra cluster, as its system tables show it.

use axum::extract::State;
use serde_json::{Map, Value, json};

use super::head::{DISABLED, DOWN, UNAVAILABLE, UP, answer_head, present};
use crate::{
    api::{
        error::{ApiResult, json as json_answer},
        state::ApiState,
    },
    store::{
        Server,
        server::{Node, Replication},
    },
};

/// `GET /api/v1/cassandra/status`
pub async fn status(State(state): State<ApiState>) -> ApiResult {
    let (mut answer, server) = cassandra(&state).await;
    let hosts: Vec<Value> = server.nodes.iter().map(host).collect();
    let details = present(json!({
        "contact_points": server.contact_points,
        "port": (server.port > 0).then_some(server.port),
        "keyspace": Some(&server.keyspace).filter(|name| !name.is_empty()),
        "cluster_name": server.name,
        "version": server.version,
        "data_center": server.nodes.iter().find_map(|node| node.datacenter.as_deref()),
        "hosts": hosts,
    }));
    // The panel reads some members beside `details`.
    for name in ["contact_points", "port", "keyspace", "hosts"] {
        if let Some(value) = details.get(name) {
            answer.insert(name.into(), value.clone());
        }
    }
    answer.insert("details".into(), details);
    json_answer(&answer)
}

fn host(node: &Node) -> Value {
    json!({
        "address": node.address,
        "datacenter": node.datacenter,
        "data_center": node.datacenter,
        "rack": node.rack,
        "is_up": node.is_up,
        "status": if node.is_up { UP } else { DOWN },
    })
}

/// `GET /api/v1/cassandra/metrics`
pub async fn metrics(State(state): State<ApiState>) -> ApiResult {
    let (mut answer, server) = cassandra(&state).await;
    let (Some(replication), false) = (&server.replication, server.error.is_some()) else {
        answer.insert("metrics".into(), json!({}));
        return json_answer(&answer);
    };
    let Replication { strategy, factor } = replication;
    let tables: Vec<Value> = server.tables.iter().map(|name| json!({ "name": name })).collect();
    let live = server.nodes.iter().filter(|node| node.is_up).count();
    let metrics = json!({
        "keyspaces": [{
            "name": server.keyspace,
            "replication_strategy": strategy,
            "replication_factor": factor,
            "tables": tables,
        }],
        "cluster_stats": {
            "total_nodes": server.nodes.len(), "live_nodes": live, "down_nodes": server.nodes.len() - live,
        },
    });
    // The panel reads a summary beside `metrics`.
    let schema = json!({
        "keyspace_count": 1,
        "table_count": server.tables.len(),
        "replication_strategies": [format!("{}: {strategy} ({factor})", server.keyspace)],
    });
    answer.insert("metrics".into(), metrics);
    answer.insert("schema".into(), schema);
    json_answer(&answer)
}

/// The head of an answer about Cassandra, and the state of the cluster.
async fn cassandra(state: &ApiState) -> (Map<String, Value>, Server) {
    let Some(server) = state.store.server().await else {
        return (answer_head(DISABLED, "the store is SQLite"), Server::default());
    };
    let (status, message) = match &server.error {
        None => (UP, format!("connected to the cluster `{}`", server.name.as_deref().unwrap_or_default())),
        Some(error) if server.connected_before => (DOWN, error.clone()),
        Some(error) => (UNAVAILABLE, error.clone()),
    };
    (answer_head(status, &message), server)
}
