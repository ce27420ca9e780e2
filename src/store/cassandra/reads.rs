//! Read queries.

use std::{collections::BTreeMap, ops::ControlFlow};

use scylla::{statement::prepared::PreparedStatement, value::CqlTimestamp};
use uuid::Uuid;

use super::{
    errors,
    pages::{bounds, collect, cql_limit, each, pages, range, unreadable},
    row_columns::{Read, Sample},
    session::LiveSession,
};
use crate::{
    cooperative::YieldEvery,
    curve::{Field, Samples},
    event::{DatasetRow, EventKey, EventRow, MemSize, MetricsRow, RunRow, TopologyRow, restore_micros},
    store::{METRIC_NAMES_MAX, RangeQuery, SamplesQuery, Seqs, StoreError},
    units::Micros,
};

fn key(run_id: Uuid, timestamp: CqlTimestamp, event_id: i64) -> EventKey {
    EventKey { run_id, timestamp: restore_micros(timestamp.0, event_id), event_id }
}

pub(super) async fn metrics(live: &LiveSession, query: &RangeQuery) -> Result<Vec<MetricsRow>, StoreError> {
    range(live, &live.statements.metrics, query, |Read(row): Read<MetricsRow>| row).await
}

pub(super) async fn seqs(live: &LiveSession, query: &RangeQuery) -> Result<Seqs, StoreError> {
    type Stored = (Uuid, CqlTimestamp, i64, Option<i64>);
    let Some((first, last)) = bounds(query) else { return Ok(Vec::new()) };
    let statements = &live.statements.seqs;
    let statement = if query.ascending { &statements.oldest_first } else { &statements.newest_first };
    let values = (query.run_id, CqlTimestamp(first.0), first.1, CqlTimestamp(last.0), last.1, cql_limit(query.limit));
    collect(live, statement, values, query.limit, |(run_id, at, event_id, seq): Stored| {
        (key(run_id, at, event_id), seq)
    })
    .await
}

/// Decodes in place; only the numbers are copied.
pub(super) async fn samples(live: &LiveSession, query: &SamplesQuery) -> Result<Samples, StoreError> {
    let mut samples = Samples::default();
    if query.fields.iter().any(|field| matches!(field, Field::Extra(_))) {
        each(live, &live.statements.metrics, &query.range, |Read(row): Read<MetricsRow>| {
            samples.add(&row.key, &row.columns, &row.extra, &query.fields);
            (row.bytes(), ControlFlow::Continue(()))
        })
        .await?;
        return Ok(samples);
    }
    let Some((first, last)) = bounds(&query.range) else { return Ok(samples) };
    let (statements, limit) = (&live.statements.samples, query.range.limit);
    let statement = if query.range.ascending { &statements.oldest_first } else { &statements.newest_first };
    let ends = (CqlTimestamp(first.0), first.1, CqlTimestamp(last.0), last.1);
    let values = (query.range.run_id, ends.0, ends.1, ends.2, ends.3, cql_limit(limit));
    let mut yielder = YieldEvery::default();
    pages(live, statement, &values, &mut |page| {
        for row in page.rows::<Read<Sample<'_>>>().map_err(unreadable)? {
            if samples.rows.len() == limit {
                return Ok(ControlFlow::Break(()));
            }
            let Read(row) = row.map_err(unreadable)?;
            let key = key(query.range.run_id, row.timestamp, row.event_id);
            samples.add(&key, &row.columns, &BTreeMap::new(), &query.fields);
            yielder.tick();
        }
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    Ok(samples)
}

pub(super) async fn count_metrics(live: &LiveSession, run_id: Uuid) -> Result<u64, StoreError> {
    let counts = collect(live, &live.statements.count_metrics, (run_id,), 1, |(n,): (i64,)| n).await?;
    Ok(counts.first().map_or(0, |n| u64::try_from(*n).unwrap_or(0)))
}

pub(super) async fn topology(live: &LiveSession, query: &RangeQuery) -> Result<Vec<TopologyRow>, StoreError> {
    range(live, &live.statements.topology, query, |Read(row): Read<TopologyRow>| row).await
}

pub(super) async fn events(live: &LiveSession, query: &RangeQuery) -> Result<Vec<EventRow>, StoreError> {
    range(live, &live.statements.events, query, |Read(row): Read<EventRow>| row).await
}

pub(super) async fn dataset(live: &LiveSession, dataset_id: Uuid) -> Result<Option<DatasetRow>, StoreError> {
    let rows = collect(live, &live.statements.dataset, (dataset_id,), 1, |Read(row): Read<DatasetRow>| row).await?;
    Ok(rows.into_iter().next())
}

pub(super) async fn run(live: &LiveSession, run_id: Uuid) -> Result<Option<RunRow>, StoreError> {
    Ok(collect(live, &live.statements.run, (run_id,), 1, |Read(row): Read<RunRow>| row).await?.pop())
}

/// The rows of these runs, unordered.
pub(super) async fn runs_by_id(live: &LiveSession, ids: &[Uuid]) -> Result<Vec<RunRow>, StoreError> {
    collect(live, &live.statements.runs, (ids,), usize::MAX, |Read(row): Read<RunRow>| row).await
}

pub(super) async fn metric_names(live: &LiveSession, run_id: Uuid) -> Result<Vec<String>, StoreError> {
    let values = (run_id, METRIC_NAMES_MAX as i32);
    collect(live, &live.statements.names, values, METRIC_NAMES_MAX, |(_, name): (Uuid, String)| name).await
}

/// The partitions of a table, newest first: one per retained day or month with data.
pub(super) async fn partitions(live: &LiveSession, statement: &PreparedStatement) -> Result<Vec<String>, StoreError> {
    let mut all = collect(live, statement, (), usize::MAX, |(name,): (String,)| name).await?;
    all.sort_unstable_by(|a, b| b.cmp(a));
    Ok(all)
}

/// The time of the node that answers, in whole milliseconds.
pub(super) async fn server_time(live: &LiveSession) -> Result<Micros, StoreError> {
    let answer = live.session.execute_unpaged(&live.statements.server_time, ()).await.map_err(errors::store_error)?;
    let rows = answer.into_rows_result().map_err(|error| StoreError::Misconfigured(error.into()))?;
    let (millis,) = rows.first_row::<(i64,)>().map_err(|error| StoreError::Misconfigured(error.into()))?;
    Ok(millis.saturating_mul(1_000))
}
