//! The rights of the login on the keyspace, tried without an effect.

use scylla::{
    client::session::Session,
    errors::{DbError, ExecutionError, RequestAttemptError},
    statement::Statement,
};

use super::{AREA, Finding, Report};
use crate::store::cassandra::{Config, grant_of};

pub(super) async fn examine(config: &Config, session: &Session, report: &mut Report) {
    let table = format!("\"{}\".run_deletions", config.keyspace);
    // A server checks the right first, then refuses a key that is null.
    let tries = [
        ("SELECT", format!("SELECT run_id FROM {table} LIMIT 1"), "rows cannot be merged or read"),
        (
            "MODIFY",
            format!("DELETE FROM {table} WHERE run_id = null"),
            "rows wait in the spool, and are lost once it is full",
        ),
    ];
    let mut tried = Vec::new();
    for (right, query, without) in tries {
        match session.query_unpaged(Statement::new(query), ()).await {
            Err(
                ref error @ ExecutionError::LastAttemptError(RequestAttemptError::DbError(
                    DbError::Unauthorized,
                    ref words,
                )),
            ) => {
                let what = format!("the role may not {right} in keyspace `{}`: {without}", config.keyspace);
                report.push(Finding::stops(AREA, what).fix(grant_of(error)).evidence(words.clone()));
            }
            _ => tried.push(right),
        }
    }
    report.saw(format!("rights of the role: {}", if tried.is_empty() { "none".to_owned() } else { tried.join(", ") }));
}
