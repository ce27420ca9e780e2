//! Connection of the schema tool: server properties, schema queries, and schema changes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use scylla::{
    client::session::Session,
    errors::{DbError, ExecutionError, RequestAttemptError},
    policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy},
    statement::Statement,
};
use serde_json::{Map, Value};
use tokio::time::{self, Instant};
use tracing::info;

use super::SchemaError;
use crate::store::cassandra::{self, ErrorClass, classify_execution, session};

/// Request timeout: with a dead node that still counts as up, one statement takes 10 s.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// Time during which a refused login is retried: a new cluster creates its first user some seconds after opening its port.
const LOGIN_PATIENCE: Duration = Duration::from_secs(10);
const TRIES: u32 = 5;

/// A row of a system table, by column.
pub(super) type Row = Map<String, Value>;

#[derive(Debug)]
pub(super) struct Server {
    session: Session,
    /// Such as `5.0.9`; of the oldest node.
    pub(super) version: String,
    pub(super) cluster: String,
    pub(super) nodes: usize,
    pub(super) datacenters: Vec<String>,
}

impl Server {
    /// Connects, retrying until `wait` is over.
    pub(super) async fn connect(config: &cassandra::Config, wait: Duration) -> Result<Self, SchemaError> {
        // A password or certificate file that cannot be read is not retried.
        let mut problems = Vec::new();
        config.file_problems(&mut problems);
        if !problems.is_empty() {
            return Err(SchemaError::Connect(problems.join("; ")));
        }
        let started = Instant::now();
        let mut told = false;
        loop {
            let trouble = match Box::pin(session::open(config)).await {
                Ok(session) => return Self::look(session).await,
                Err(trouble) => trouble,
            };
            let patience = if trouble.class == ErrorClass::Unavailable { wait } else { wait.min(LOGIN_PATIENCE) };
            if started.elapsed() >= patience {
                return Err(SchemaError::Connect(trouble.to_string()));
            }
            if !told {
                info!(error = %trouble, "waiting for Cassandra");
                told = true;
            }
            time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn look(session: Session) -> Result<Self, SchemaError> {
        let mut server =
            Self { session, version: String::new(), cluster: String::new(), nodes: 0, datacenters: Vec::new() };
        let mut nodes =
            server.rows("SELECT JSON cluster_name, release_version, data_center FROM system.local", &[]).await?;
        nodes.extend(server.rows("SELECT JSON release_version, data_center FROM system.peers", &[]).await?);
        let text = |row: &Row, name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        server.cluster = nodes.first().map(|row| text(row, "cluster_name")).unwrap_or_default();
        server.nodes = nodes.len();
        server.version =
            nodes.iter().map(|row| text(row, "release_version")).min_by_key(|v| major_minor(v)).unwrap_or_default();
        server.datacenters = nodes.iter().map(|row| text(row, "data_center")).collect();
        server.datacenters.sort();
        server.datacenters.dedup();
        Ok(server)
    }

    /// Whether the server has storage-attached indexes and the unified compaction strategy.
    pub(super) fn is_5(&self) -> bool {
        major_minor(&self.version) >= (5, 0)
    }

    /// The rows of `SELECT JSON ..`.
    pub(super) async fn rows(&self, query: &str, values: &[&str]) -> Result<Vec<Row>, SchemaError> {
        let failed = |error: String| SchemaError::Read { query: query.to_owned(), error };
        let result = self
            .session
            .query_unpaged(Statement::new(query), values)
            .await
            .map_err(|error| failed(error.to_string()))?
            .into_rows_result()
            .map_err(|error| failed(error.to_string()))?;
        let mut rows = Vec::with_capacity(result.rows_num());
        for row in result.rows::<(&str,)>().map_err(|error| failed(error.to_string()))? {
            let (json,) = row.map_err(|error| failed(error.to_string()))?;
            rows.push(serde_json::from_str(json).map_err(|error| failed(error.to_string()))?);
        }
        Ok(rows)
    }

    /// Sends one statement and waits for schema agreement of all nodes. A statement repeated, or sent concurrently by another
    /// client, is no error.
    pub(super) async fn execute(&self, statement: &super::Statement) -> Result<(), SchemaError> {
        let failed = |error: String| SchemaError::Execute { place: statement.place.clone(), error };
        let mut tries = 0;
        loop {
            tries += 1;
            let mut request = Statement::new(&statement.text);
            request.set_request_timeout(Some(STATEMENT_TIMEOUT));
            request.set_load_balancing_policy(self.coordinator());
            match self.session.query_unpaged(request, &[]).await {
                Ok(_) => break,
                Err(error) if already_exists(&error) => break,
                Err(error) if classify_execution(&error) == ErrorClass::Unavailable && tries < TRIES => {
                    time::sleep(Duration::from_secs(1)).await;
                }
                Err(error) => return Err(failed(error.to_string())),
            }
        }
        self.session.await_schema_agreement().await.map_err(|error| failed(error.to_string()))?;
        Ok(())
    }

    /// One coordinator for all schema changes, the same for every client: two nodes that create a table concurrently give it two
    /// ids.
    fn coordinator(&self) -> Option<Arc<dyn scylla::policies::load_balancing::LoadBalancingPolicy>> {
        let state = self.session.get_cluster_state();
        let first = state.get_nodes_info().iter().filter(|node| node.is_connected()).min_by_key(|node| node.host_id)?;
        Some(SingleTargetLoadBalancingPolicy::new(NodeIdentifier::HostId(first.host_id), None))
    }

    pub(super) async fn keyspace(&self, name: &str) -> Result<Option<Row>, SchemaError> {
        let query = "SELECT JSON * FROM system_schema.keyspaces WHERE keyspace_name = ?";
        Ok(self.rows(query, &[name]).await?.pop())
    }

    pub(super) async fn table(&self, keyspace: &str, name: &str) -> Result<Option<Row>, SchemaError> {
        let query = "SELECT JSON * FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?";
        Ok(self.rows(query, &[keyspace, name]).await?.pop())
    }

    /// The columns of a table, by name.
    pub(super) async fn columns(&self, keyspace: &str, table: &str) -> Result<HashMap<String, Row>, SchemaError> {
        let query = "SELECT JSON * FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ?";
        let rows = self.rows(query, &[keyspace, table]).await?;
        let named = |row: Row| Some((row.get("column_name")?.as_str()?.to_owned(), row));
        Ok(rows.into_iter().filter_map(named).collect())
    }

    /// The columns of a table that have an index.
    pub(super) async fn indexed(&self, keyspace: &str, table: &str) -> Result<Vec<String>, SchemaError> {
        let query = "SELECT JSON * FROM system_schema.indexes WHERE keyspace_name = ? AND table_name = ?";
        let rows = self.rows(query, &[keyspace, table]).await?;
        let target = |row: Row| Some(row.get("options")?.get("target")?.as_str()?.trim_matches('"').to_owned());
        Ok(rows.into_iter().filter_map(target).collect())
    }
}

fn already_exists(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::AlreadyExists { .. }, _)) => true,
        // The server reports an existing index as `Invalid`.
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, text)) => {
            text.to_ascii_lowercase().contains("already exists")
        }
        _ => false,
    }
}

fn major_minor(version: &str) -> (u32, u32) {
    let mut parts = version.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(major_minor("5.0.9"), (5, 0));
        assert_eq!(major_minor("4.1.10"), (4, 1));
        assert_eq!(major_minor("5.1-beta1"), (5, 1));
        assert!(major_minor("10.0") > major_minor("5.0"));
    }
}
