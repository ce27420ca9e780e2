//! Cassandra: whether it is there, its nodes and clocks, replication and consistency, tables, limits, and the rights of the login.

mod limits;
mod nodes;
mod replication;
mod rights;
mod tables;

use scylla::{
    client::session::Session,
    policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy},
    statement::Statement,
};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Finding, Report};
use crate::{
    config::Settings,
    host,
    logging::Chain,
    store::cassandra::{Config, ConnectFailure, ErrorClass, session},
};

pub(super) const AREA: &str = "cassandra";

/// A row of `SELECT JSON ..`, by column.
type Row = Map<String, Value>;

pub(super) async fn examine(settings: &Settings) -> Report {
    let config = &settings.store.cassandra;
    let mut report = Report::default();
    let mut problems = Vec::new();
    config.file_problems(&mut problems);
    if !problems.is_empty() {
        let what = "a file for the connection to Cassandra cannot be used, so no daemon starts";
        report.push(
            Finding::stops(AREA, what).evidence(problems.join("; ")).fix("correct the file or the key that names it"),
        );
        return report;
    }
    let session = match Box::pin(session::open(config)).await {
        Ok(session) => session,
        Err(failure) => {
            report.push(unreachable(config, &failure));
            return report;
        }
    };
    let nodes = nodes::examine(&session, &mut report).await;
    let replication = replication::examine(config, &session, &nodes, &mut report).await;
    tables::examine(settings, &session, replication.is_some(), &mut report).await;
    limits::examine(settings, &session, replication, &mut report).await;
    if replication.is_some() {
        rights::examine(config, &session, &mut report).await;
    }
    exposure(config, &mut report);
    report
}

/// Why there is no session.
fn unreachable(config: &Config, failure: &ConnectFailure) -> Finding {
    let addresses = config.addresses().join(", ");
    let (what, fix) = match failure.class {
        ErrorClass::Unavailable => (
            format!("Cassandra does not answer at {addresses}"),
            "start Cassandra, or correct `store.cassandra.contact_points`",
        ),
        _ => (
            format!("Cassandra at {addresses} refuses the connection"),
            "correct `store.cassandra.username`, `password_file`, `tls` or `local_datacenter`",
        ),
    };
    let fix = failure.remedy.clone().unwrap_or_else(|| fix.to_owned());
    Finding::stops(AREA, format!("{what}: rows wait in the spool, and are lost once it is full"))
        .fix(fix)
        .evidence(Chain(failure).to_string())
}

/// The rows of `SELECT JSON ..`, from any node or from this one.
async fn rows(session: &Session, query: &str, node: Option<Uuid>) -> Result<Vec<Row>, String> {
    let mut statement = Statement::new(query);
    if let Some(node) = node {
        let policy = SingleTargetLoadBalancingPolicy::new(NodeIdentifier::HostId(node), None);
        statement.set_load_balancing_policy(Some(policy));
    }
    let result = session.query_unpaged(statement, ()).await.map_err(|error| Chain(&error).to_string())?;
    let result = result.into_rows_result().map_err(|error| error.to_string())?;
    let mut rows = Vec::with_capacity(result.rows_num());
    for row in result.rows::<(&str,)>().map_err(|error| error.to_string())? {
        let (json,) = row.map_err(|error| error.to_string())?;
        rows.push(serde_json::from_str(json).map_err(|error| error.to_string())?);
    }
    Ok(rows)
}

/// A text of a row; empty where there is none.
fn text<'r>(row: &'r Row, name: &str) -> &'r str {
    row.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Something that the login may not read.
fn not_permitted(subject: &str, table: &str, error: String) -> Finding {
    Finding::unknown(AREA, format!("{subject} could not be looked at"))
        .fix(format!("run doctor with a role that may read them (`GRANT SELECT ON {table} TO ...`)"))
        .evidence(error)
}

/// Login and encryption, for the place where the nodes are.
fn exposure(config: &Config, report: &mut Report) {
    let addresses = config.addresses();
    let host_of = |address: &String| {
        address.rsplit_once(':').map_or(address.clone(), |(host, _)| host.trim_matches(['[', ']']).to_owned())
    };
    let remote = addresses.iter().map(host_of).find(|host| !host::is_loopback(host));
    let has_login = config.username.as_ref().is_some_and(|name| !name.is_empty());
    if !has_login {
        let what =
            "Cassandra takes connections without a login: any client that reaches it may change and drop the tables";
        let fix = "use an authenticator in cassandra.yaml, and set `store.cassandra.username` and `password_file`";
        let finding = if remote.is_some() { Finding::exposes(AREA, what) } else { Finding::advice(AREA, what) };
        report.push(finding.fix(fix).evidence(format!("no login is set for {}", addresses.join(", "))));
    }
    if let Some(host) = remote.filter(|_| !config.tls.is_enabled()) {
        let what = format!(
            "the connection to Cassandra at `{host}` is not encrypted: who is on the way reads passwords and rows"
        );
        let finding = if has_login { Finding::exposes(AREA, what) } else { Finding::advice(AREA, what) };
        report.push(
            finding
                .fix("set `store.cassandra.tls.enabled = true`, and a private authority in `store.cassandra.tls.ca`"),
        );
    }
}
