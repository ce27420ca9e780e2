//! Run rows and the index of recent runs.
//!
//! `runs_by_month` holds one entry per run, under its start time. When the start time changes, the new entry is written first,
//! then the row, then the old entry is deleted. A crash in between leaves an extra entry, never a missing one; entries whose
//! start differs from the row's are ignored.

use std::{collections::HashMap, ops::ControlFlow};

use scylla::value::CqlTimestamp;
use uuid::Uuid;

use super::{errors, pages, reads, row_values::Bound, session::LiveSession, time, writes};
use crate::{
    event::{MemSize, RunRow},
    store::{Runs, RunsQuery, StoreError},
    units::Micros,
};

/// Maximum runs fetched by one request while scanning the index. Fewer are fetched while their size is unknown or large.
const CHUNK_ROWS: usize = 32;
/// Names per write.
const NAMES_PER_BATCH: usize = 100;
/// Index entries scanned per query: a filter with few matches stops here and returns a cursor.
const ENTRIES_MAX: usize = 20_000;

pub(super) async fn write(live: &LiveSession, change: &RunRow, stored_start: Option<Micros>) -> Result<(), StoreError> {
    let entry = |start: Micros| (time::month(start), time::cql(start), change.run_id);
    // The index keeps milliseconds: a smaller change of the start is none.
    let stored = stored_start.filter(|old| change.start_time.map(time::millis) != Some(time::millis(*old)));
    let moved = change.start_time.filter(|_| stored.is_some() || stored_start.is_none());
    let execute = async |statement, values: (String, CqlTimestamp, Uuid)| {
        live.session.execute_unpaged(statement, values).await.map(drop).map_err(errors::store_error)
    };
    if let Some(start) = moved {
        execute(&live.statements.insert_month, entry(start)).await?;
    }
    live.session
        .execute_unpaged(&live.statements.insert_run, Bound { row: change, ttl: None })
        .await
        .map_err(errors::store_error)?;
    if let (Some(_), Some(old)) = (moved, stored) {
        execute(&live.statements.delete_month, entry(old)).await?;
    }
    Ok(())
}

/// Adds names to those of a run, in batches of one partition.
pub(super) async fn write_names(live: &LiveSession, run_id: Uuid, names: &[String]) -> Result<(), StoreError> {
    for some in names.chunks(NAMES_PER_BATCH) {
        let values: Vec<_> = some.iter().map(|name| (run_id, name.as_str())).collect();
        writes::send(&live.session, &live.statements.insert_name, values).await.map_err(errors::store_error)?;
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

/// The newest runs: scans the months with entries, newest first, and fetches their rows in chunks.
pub(super) async fn newest(live: &LiveSession, query: &RunsQuery) -> Result<Runs, StoreError> {
    let mut found = Vec::new();
    if query.limit == 0 {
        return Ok(found.into());
    }
    let newest_month = query.before.map(|(at, _)| time::month(at));
    let (mut scanned, mut oldest) = (0, None);
    let (mut chunk, mut largest) = (1, 0);
    for month in reads::partitions(live, &live.statements.months).await? {
        if newest_month.as_ref().is_some_and(|newest| month > *newest) {
            continue;
        }
        let entries = entries(live, month, query, ENTRIES_MAX - scanned).await?;
        scanned += entries.len();
        oldest = entries.last().copied().or(oldest);
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let (some, later) = rest.split_at(chunk.min(rest.len()));
            largest = largest.max(append_runs(live, some, query, &mut found).await?);
            if query.is_filled(&found) {
                return Ok(found.into());
            }
            chunk = pages::next_page_rows(chunk, largest, usize::MAX, CHUNK_ROWS);
            rest = later;
        }
        if scanned >= ENTRIES_MAX {
            return Ok(Runs { rows: found, scanned_to: oldest.map(|(start, run_id)| (time::micros(start), run_id)) });
        }
    }
    Ok(found.into())
}

type Entry = (CqlTimestamp, Uuid);

/// At most `max` entries of a month after the cursor.
async fn entries(live: &LiveSession, month: String, query: &RunsQuery, max: usize) -> Result<Vec<Entry>, StoreError> {
    let upto = query.before.map_or(CqlTimestamp(i64::MAX), |(at, _)| time::cql(at));
    let mut entries = Vec::new();
    pages::pages(live, &live.statements.month, (month, upto), |page| {
        let rows =
            page.rows::<(String, CqlTimestamp, Uuid)>().map_err(|error| StoreError::Misconfigured(error.into()))?;
        for row in rows {
            let (_, start, run_id) = row.map_err(|error| StoreError::Misconfigured(error.into()))?;
            if entries.len() >= max {
                return Ok(ControlFlow::Break(()));
            }
            if query.before.is_none_or(|before| sorts_after((start, run_id), before)) {
                entries.push((start, run_id));
            }
        }
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    Ok(entries)
}

/// Newest first, then by Cassandra's order of ids.
fn sorts_after((start, run_id): Entry, (at, id): (Micros, Uuid)) -> bool {
    time::millis(at).cmp(&start.0).then_with(|| time::uuid_order(run_id, id)).is_gt()
}

/// Size of the largest of these runs.
async fn append_runs(
    live: &LiveSession,
    chunk: &[Entry],
    query: &RunsQuery,
    found: &mut Vec<RunRow>,
) -> Result<usize, StoreError> {
    let ids: Vec<Uuid> = chunk.iter().map(|(_, id)| *id).collect();
    let rows = reads::runs_by_id(live, &ids).await?;
    let largest = rows.iter().map(RunRow::bytes).max().unwrap_or(0);
    let mut rows: HashMap<Uuid, RunRow> = rows.into_iter().map(|row| (row.run_id, row)).collect();
    for (start, id) in chunk {
        let wanted = rows.get(id).is_some_and(|row| {
            row.start_time.map(time::millis) == Some(start.0)
                && query.status.as_ref().is_none_or(|status| row.status.as_ref() == Some(status))
                && query.dataset.as_ref().is_none_or(|name| row.dataset_name.as_ref() == Some(name))
        });
        if wanted && let Some(row) = rows.remove(id) {
            found.push(row);
            if found.len() == query.limit {
                break;
            }
        }
    }
    Ok(largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_runs_goes_on_after_its_cursor() {
        let (a, b) = (Uuid::from_u128(0x4000 << 64), Uuid::from_u128((0x4000 << 64) + 1));
        for (entry, cursor, after) in [
            ((10, a), (10_000, a), false),
            ((10, b), (10_000, a), true),
            ((10, a), (10_000, b), false),
            ((9, a), (10_000, b), true),
            ((11, b), (10_999, a), false),
        ] {
            assert_eq!(sorts_after((CqlTimestamp(entry.0), entry.1), cursor), after, "{entry:?} {cursor:?}");
        }
    }
}
