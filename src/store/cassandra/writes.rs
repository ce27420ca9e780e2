//! Writes rows one partition at a time, with the TTL of their table and the time of the write ([`write_times`](super::write_times)).

use std::time::Duration;

use scylla::{
    client::session::Session,
    errors::ExecutionError,
    serialize::row::SerializeRow,
    statement::{
        batch::{Batch as Statements, BatchStatement, BatchType},
        prepared::PreparedStatement,
    },
    value::MaybeUnset,
};

use super::{errors, row_values::Bound, session::LiveSession};
use crate::{
    event::Table,
    store::{Batch, Retention, StoreError},
    units::{Micros, now},
};

/// Latest expiry that is requested: Cassandra refuses 2038-01-19T03:14:07Z; one minute less for clock skew.
const LAST_EXPIRY_SECONDS: i64 = 2_147_483_646 - 60;
/// Cassandra's maximum TTL: 20 years.
const TTL_MAX_SECONDS: i64 = 630_720_000;

/// The TTL to bind. Zero retention leaves it unset: both NULL and 0 would be written as such.
pub(super) fn ttl(retention: Duration, now: Micros) -> MaybeUnset<i32> {
    if retention.is_zero() {
        return MaybeUnset::Unset;
    }
    let wanted = i64::try_from(retention.as_secs()).unwrap_or(TTL_MAX_SECONDS);
    let until_the_end = LAST_EXPIRY_SECONDS - now.div_euclid(1_000_000);
    if until_the_end <= 0 {
        // The clock is past Cassandra's last expiry, or wrong: keeping rows for ever is better than losing them.
        return MaybeUnset::Unset;
    }
    let seconds = wanted.min(TTL_MAX_SECONDS).min(until_the_end);
    MaybeUnset::Set(i32::try_from(seconds).unwrap_or(i32::MAX))
}

/// Writes a batch of one partition; a single row without a batch.
pub(super) async fn write(
    live: &LiveSession,
    retention: &Retention,
    batch: &Batch,
    time: Option<Micros>,
) -> Result<(), StoreError> {
    if batch.rows.iter().any(|row| row.destination().0 != batch.table) {
        return Err(StoreError::Rejected("a row of another table is in this batch".into()));
    }
    // Datasets never expire: their statement has no TTL.
    let ttl = (batch.table != Table::Datasets).then(|| ttl(retention.of(batch.table), now()));
    let values = batch.rows.iter().map(|row| Bound { row, ttl }).collect();
    send(&live.session, &at(live.statements.insert(batch.table), time), values).await.map_err(errors::store_error)
}

/// The statement with this time, or that of the server.
pub(super) fn at(statement: &PreparedStatement, time: Option<Micros>) -> PreparedStatement {
    let mut timed = statement.clone();
    timed.set_timestamp(time);
    timed
}

/// Sends the rows of one partition, with the time of the statement.
pub(super) async fn send<V: SerializeRow>(
    session: &Session,
    statement: &PreparedStatement,
    values: Vec<V>,
) -> Result<(), ExecutionError> {
    if let [row] = values.as_slice() {
        return session.execute_unpaged(statement, row).await.map(drop);
    }
    // Unlogged: all rows share one partition, so the batch is one mutation and applied as a whole.
    let each = vec![BatchStatement::from(statement.clone()); values.len()];
    let mut batch = Statements::new_with_statements(BatchType::Unlogged, each);
    batch.set_is_idempotent(true);
    batch.set_timestamp(statement.get_timestamp());
    if let Some(consistency) = statement.get_consistency() {
        batch.set_consistency(consistency);
    }
    session.batch(&batch, values).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(retention_seconds: u64, now_seconds: i64) -> Option<i32> {
        match ttl(Duration::from_secs(retention_seconds), now_seconds * 1_000_000) {
            MaybeUnset::Set(seconds) => Some(seconds),
            MaybeUnset::Unset => None,
        }
    }

    #[test]
    fn no_row_outlives_what_cassandra_can_count() {
        let now = 1_800_000_000;
        assert_eq!(bound(0, now), None, "for ever is unset");
        assert_eq!(bound(2_592_000, now), Some(2_592_000));
        assert_eq!(bound(u64::MAX, now), Some((LAST_EXPIRY_SECONDS - now) as i32));
        assert_eq!(bound(u64::MAX, 1_000), Some(TTL_MAX_SECONDS as i32));
        assert_eq!(bound(60, LAST_EXPIRY_SECONDS + 5), None, "rather than at once");
    }
}
