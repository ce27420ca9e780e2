//! The reads of tables with a partition for each day, gaps and control commands: day by day, newest first.

use scylla::{DeserializeRow, statement::prepared::PreparedStatement, value::CqlTimestamp};
use uuid::Uuid;

use super::{
    pages::{collect, cql_limit},
    reads::partitions,
    session::LiveSession,
    time,
};
use crate::{
    event::{ControlRow, GapRow, restore_micros},
    store::{DaysQuery, StoreError},
};

#[derive(DeserializeRow)]
#[allow(dead_code, reason = "the partition is selected with the rest of the columns")]
struct Gap {
    day: String,
    started_at: CqlTimestamp,
    gap_id: Uuid,
    ended_at: Option<CqlTimestamp>,
    reason: Option<String>,
    source: Option<String>,
    channel: Option<String>,
    instance: Option<String>,
    run_id: Option<Uuid>,
    lost: Option<i64>,
}

pub(super) async fn gaps(live: &LiveSession, query: &DaysQuery) -> Result<Vec<GapRow>, StoreError> {
    let (start, end) = (time::cql(query.start), time::cql(query.end));
    let mut all = Vec::new();
    for day in days(live, &live.statements.gap_days, query).await? {
        let left = query.limit - all.len();
        if left == 0 {
            break;
        }
        let values = (day, start, end, cql_limit(left));
        all.extend(
            collect(live, &live.statements.gaps, values, left, |row: Gap| GapRow {
                started_at: time::micros(row.started_at),
                gap_id: row.gap_id,
                ended_at: time::micros(row.ended_at.unwrap_or(row.started_at)),
                reason: row.reason.unwrap_or_default(),
                source: row.source.unwrap_or_default(),
                channel: row.channel,
                instance: row.instance.unwrap_or_default(),
                run_id: row.run_id,
                lost: row.lost,
            })
            .await?,
        );
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

#[derive(DeserializeRow)]
#[allow(dead_code, reason = "the partition is selected with the rest of the columns")]
struct Control {
    day: String,
    timestamp: CqlTimestamp,
    event_id: i64,
    instance: String,
    command: Option<String>,
    command_id: Option<String>,
    target: Option<String>,
    source: Option<String>,
    outcome: Option<String>,
    payload_json: Option<String>,
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
        all.extend(
            collect(live, &live.statements.control, values, left, |row: Control| ControlRow {
                timestamp: restore_micros(row.timestamp.0, row.event_id),
                event_id: row.event_id,
                instance: row.instance,
                command: row.command.unwrap_or_default(),
                command_id: row.command_id,
                target: row.target,
                source: row.source.unwrap_or_default(),
                outcome: row.outcome,
                payload_json: row.payload_json.unwrap_or_default(),
            })
            .await?,
        );
    }
    Ok(all)
}
