//! Run rows and the index of recent runs.
//!
//! `runs_by_month` holds one entry per run, under its start time. When the start time changes, the new entry is written first,
//! then the row, then the old entry is deleted. A crash in between leaves an extra entry, never a missing one; entries whose
//! start differs from the row's are ignored.

use scylla::value::CqlTimestamp;
use uuid::Uuid;

use super::{
    errors,
    row_values::Bound,
    session::LiveSession,
    time,
    writes::{self, at},
};
use crate::{event::RunRow, store::StoreError, units::Micros};

/// Names per write.
const NAMES_PER_BATCH: usize = 100;

pub(super) async fn write(
    live: &LiveSession,
    change: &RunRow,
    stored_start: Option<Micros>,
    time: Option<Micros>,
) -> Result<(), StoreError> {
    let entry = |start: Micros| (time::month(start), time::cql(start), change.run_id);
    // The index keeps milliseconds: a smaller change of the start is none.
    let stored = stored_start.filter(|old| change.start_time.map(time::millis) != Some(time::millis(*old)));
    let moved = change.start_time.filter(|_| stored.is_some() || stored_start.is_none());
    let execute = async |statement, values: (String, CqlTimestamp, Uuid)| {
        live.session.execute_unpaged(&at(statement, time), values).await.map(drop).map_err(errors::store_error)
    };
    if let Some(start) = moved {
        execute(&live.statements.insert_month, entry(start)).await?;
    }
    live.session
        .execute_unpaged(&at(&live.statements.insert_run, time), Bound { row: change, ttl: None })
        .await
        .map_err(errors::store_error)?;
    if let (Some(_), Some(old)) = (moved, stored) {
        execute(&live.statements.delete_month, entry(old)).await?;
    }
    Ok(())
}

/// Adds names to those of a run, in batches of one partition.
pub(super) async fn write_names(
    live: &LiveSession,
    run_id: Uuid,
    names: &[String],
    time: Option<Micros>,
) -> Result<(), StoreError> {
    let statement = at(&live.statements.insert_name, time);
    for some in names.chunks(NAMES_PER_BATCH) {
        let values: Vec<_> = some.iter().map(|name| (run_id, name.as_str())).collect();
        writes::send(&live.session, &statement, values).await.map_err(errors::store_error)?;
    }
    Ok(())
}

/// Whether the index has the run under this start time.
pub(super) async fn is_listed(live: &LiveSession, run_id: Uuid, start: Micros) -> Result<bool, StoreError> {
    let entry = (time::month(start), time::cql(start), run_id);
    let found = live.session.execute_unpaged(&live.statements.month_entry, entry).await.map_err(errors::store_error)?;
    let rows = found.into_rows_result().map_err(|error| StoreError::Misconfigured(error.into()))?;
    Ok(rows.rows_num() > 0)
}
