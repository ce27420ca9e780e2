//! Reads of tables partitioned by day (gaps, control log), newest day first.

use scylla::statement::prepared::PreparedStatement;

use super::{
    pages::{collect, cql_limit},
    reads::partitions,
    row_columns::Read,
    session::LiveSession,
    time,
};
use crate::{
    event::{ControlRow, GapRow, restore_micros},
    store::{DaysQuery, StoreError},
};

pub(super) async fn gaps(live: &LiveSession, query: &DaysQuery) -> Result<Vec<GapRow>, StoreError> {
    let (start, end) = (time::cql(query.start), time::cql(query.end));
    let mut all = Vec::new();
    for day in days(live, &live.statements.gap_days, query).await? {
        let left = query.limit - all.len();
        if left == 0 {
            break;
        }
        let values = (day, start, end, cql_limit(left));
        all.extend(collect(live, &live.statements.gaps, values, left, |Read(row)| gap(row)).await?);
    }
    Ok(all)
}

async fn days(live: &LiveSession, statement: &PreparedStatement, query: &DaysQuery) -> Result<Vec<String>, StoreError> {
    if query.limit == 0 || query.start > query.end {
        return Ok(Vec::new());
    }
    let (first, last) = (time::day(query.start), time::day(query.end));
    let mut days = partitions(live, statement).await?;
    days.retain(|day| *day >= first && *day <= last);
    Ok(days)
}

pub(super) async fn control_log(live: &LiveSession, query: &DaysQuery) -> Result<Vec<ControlRow>, StoreError> {
    let (first, last) = (time::event_ids(query.start).0, time::event_ids(query.end).1);
    let mut all = Vec::new();
    for day in days(live, &live.statements.control_days, query).await? {
        let left = query.limit - all.len();
        if left == 0 {
            break;
        }
        let values = (day, time::cql(query.start), first, time::cql(query.end), last, cql_limit(left));
        all.extend(collect(live, &live.statements.control, values, left, |Read(row)| command(row)).await?);
    }
    Ok(all)
}

/// An absent end is read as zero: such a gap ends where it begins.
fn gap(row: GapRow) -> GapRow {
    GapRow { ended_at: if row.ended_at == 0 { row.started_at } else { row.ended_at }, ..row }
}

fn command(row: ControlRow) -> ControlRow {
    ControlRow { timestamp: restore_micros(time::millis(row.timestamp), row.event_id), ..row }
}
