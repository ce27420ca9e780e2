//! The tables: what is missing or differs, and lifetimes.

use scylla::client::session::Session;
use serde_json::Value;

use super::{AREA, Finding, Report, not_permitted, rows, text};
use crate::{
    config::Settings,
    event::Table,
    schema::{CassandraSchema, Options, SchemaError},
    units,
};

/// Cassandra keeps no row beyond this second: 2038-01-19.
const LAST_EXPIRY: i64 = 2_147_483_646;

pub(super) async fn examine(settings: &Settings, session: &Session, has_keyspace: bool, report: &mut Report) {
    if has_keyspace {
        differences(settings, report).await;
        default_lifetimes(settings, session, report).await;
    }
    report.extend(last_expiry(settings, units::now() / 1_000_000));
}

/// What `schema verify` says.
async fn differences(settings: &Settings, report: &mut Report) {
    let tool = CassandraSchema::new(&settings.store.cassandra, Options::default());
    match Box::pin(tool.verify()).await {
        Ok(found) if found.is_empty() => report.saw("tables: as they should be"),
        Ok(found) => {
            let list: Vec<_> = found.iter().take(5).map(ToString::to_string).collect();
            let more = if found.len() > list.len() {
                format!(" and {} more", found.len() - list.len())
            } else {
                String::new()
            };
            let evidence = format!("{}{more}", list.join("; "));
            let is_missing = found.iter().any(|difference| difference.found.is_none());
            report.push(if is_missing {
                let what = "tables are missing or older than this program: rows wait in the spool, and are lost once it is full";
                Finding::stops(AREA, what).fix("`cascor-ingest schema apply`").evidence(evidence)
            } else {
                let what = "tables differ from those of this program, which `schema apply` does not change";
                Finding::degrades(AREA, what).fix("`cascor-ingest schema verify` names each difference").evidence(evidence)
            });
        }
        Err(error @ SchemaError::Newer { .. }) => {
            let what = "the tables are those of a newer program: rows wait in the spool, and are lost once it is full";
            report.push(Finding::stops(AREA, what).fix("install the newer program").evidence(error.to_string()));
        }
        Err(error) => report.push(not_permitted("the tables", "system_schema.tables", error.to_string())),
    }
}

/// A lifetime of the table counts for rows that have none of their own: those of runs.
async fn default_lifetimes(settings: &Settings, session: &Session, report: &mut Report) {
    let keyspace = &settings.store.cassandra.keyspace;
    let query = format!(
        "SELECT JSON table_name, default_time_to_live FROM system_schema.tables WHERE keyspace_name = '{keyspace}'"
    );
    let rows = match rows(session, &query, None).await {
        Ok(rows) => rows,
        Err(error) => return report.push(not_permitted("lifetimes of the tables", "system_schema.tables", error)),
    };
    for row in rows {
        let (table, seconds) =
            (text(&row, "table_name"), row.get("default_time_to_live").and_then(Value::as_i64).unwrap_or(0));
        if seconds > 0 && is_kept(settings, table) {
            let what = format!("rows of `{table}` that should be kept for ever expire after {} days", seconds / 86_400);
            let fix = format!(
                "`ALTER TABLE {keyspace}.{table} WITH default_time_to_live = 0`; rows that are there keep their end"
            );
            let evidence = format!("default_time_to_live of {keyspace}.{table} is {seconds} s");
            report.push(Finding::loses(AREA, what).fix(fix).evidence(evidence));
        }
    }
}

/// Whether rows of this table have no lifetime of their own.
fn is_kept(settings: &Settings, table: &str) -> bool {
    let known = Table::ALL.iter().find(|known| known.name() == table);
    table != "run_deletions" && known.is_none_or(|known| settings.store.retention.of(*known).is_zero())
}

/// Rows that would outlive the last expiry end there.
fn last_expiry(settings: &Settings, now_seconds: i64) -> Option<Finding> {
    let left = LAST_EXPIRY - now_seconds;
    let longest =
        Table::ALL.iter().map(|table| (table, settings.store.retention.of(*table))).max_by_key(|(_, kept)| *kept)?;
    let wanted = i64::try_from(longest.1.as_secs()).unwrap_or(i64::MAX);
    (wanted > left).then(|| {
        let what = format!(
            "rows of `{}` end on 2038-01-19, before their retention of {}: Cassandra's lifetimes go no further",
            longest.0.name(),
            units::format_duration(longest.1)
        );
        Finding::advice(AREA, what)
            .fix("a shorter `store.retention`, or \"0s\" to keep them for ever")
            .evidence(format!("{} days are left until then", left / 86_400))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_beyond_2038_is_advised_against() {
        let mut settings = Settings::default();
        let (now, year) = (1_795_000_000, 365 * 86_400);
        assert!(last_expiry(&settings, now).is_none());
        settings.store.retention.metrics = std::time::Duration::from_secs(12 * year);
        assert!(last_expiry(&settings, now).is_some_and(|finding| finding.what.contains("training_metrics")));
        settings.store.retention.metrics = std::time::Duration::from_secs(10 * year);
        assert!(last_expiry(&settings, now).is_none());
    }
}
