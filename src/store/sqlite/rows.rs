//! INSERT and UPDATE statements, one per table, each idempotent.

use std::{iter, sync::LazyLock};

use rusqlite::{CachedStatement, Connection, ToSql, params, params_from_iter};
use uuid::{Uuid, fmt::Hyphenated};

use super::{
    encode,
    long::{LongTexts, TextPlacement},
    read,
};
use crate::{
    event::{
        ColumnValue, ControlRow, DatasetRow, EventKey, EventRow, GapRow, METRIC_COLUMNS, MetricsRow, Row, RunRow,
        StoredRow, StoredValue, Table, TopologyRow,
    },
    store::{Batch, Retention},
    units::Micros,
};

/// Writes every row of a batch, within the caller's transaction.
pub(super) fn write(
    connection: &Connection,
    batch: &Batch,
    now: Micros,
    retention: &Retention,
) -> rusqlite::Result<()> {
    let sql = match batch.table {
        Table::Metrics => &METRICS,
        Table::Topology => &TOPOLOGY,
        Table::Events => &EVENTS,
        Table::Datasets => &DATASETS,
        Table::Control => &CONTROL,
        Table::Gaps => &GAPS,
    };
    let keep = retention.of(batch.table);
    let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    let expires = (keep > 0).then(|| now.saturating_add(keep));
    let mut statement = connection.prepare_cached(sql)?;
    let mut long_texts = LongTexts::for_rows(connection, &batch.rows)?;
    batch.rows.iter().try_for_each(|row| match row {
        Row::Metrics(row) => metrics(&mut statement, &mut long_texts, row, expires),
        Row::Topology(row) => event(&mut statement, &row.key, row, expires),
        Row::Event(row) => event(&mut statement, &row.key, row, expires),
        Row::Dataset(row) => statement.execute(params_from_iter(row.values())).map(drop),
        Row::Control(row) => of_day(&mut statement, row.timestamp, row, expires),
        Row::Gap(row) => of_day(&mut statement, row.started_at, row, expires),
    })
}

const KEY: [&str; 3] = ["run_id", "timestamp", "event_id"];

/// An INSERT, or INSERT OR REPLACE, of these columns.
pub(super) fn insert(verb: &str, table: &str, columns: &[&[&str]]) -> String {
    let columns = columns.concat();
    let marks = vec!["?"; columns.len()].join(", ");
    format!("{verb} INTO {table} ({}) VALUES ({marks})", columns.join(", "))
}

static METRICS: LazyLock<String> = LazyLock::new(|| {
    let columns = METRIC_COLUMNS.map(|column| column.name);
    let rest = ["extra", "rest_json", "non_finite", "expires_at"];
    insert("INSERT OR REPLACE", "training_metrics_rows", &[&KEY, &columns, &rest])
});

fn metrics(
    statement: &mut CachedStatement<'_>,
    long_texts: &mut LongTexts<'_>,
    row: &MetricsRow,
    expires: Option<Micros>,
) -> rusqlite::Result<()> {
    let extra = encode::numbers(&row.extra);
    let (extra, rest_json) = (TextPlacement::of(extra.as_deref()), TextPlacement::of(row.rest_json.as_deref()));
    let values = row.columns.values();
    let nan =
        encode::nan_columns(METRIC_COLUMNS.iter().zip(values).map(|(column, value)| (column.name, value.number())));
    let run_id = &mut buffer();
    let run_id = text(row.key.run_id, run_id);
    let key: [&dyn ToSql; 3] = [&run_id, &row.key.timestamp, &row.key.event_id];
    let columns = values.iter().map(|value| value as &dyn ToSql);
    let rest: [&dyn ToSql; 4] = [&extra.in_row, &rest_json.in_row, &nan, &expires];
    statement.execute(params_from_iter(key.into_iter().chain(columns).chain(rest)))?;
    long_texts.write(&row.key, extra.long, rest_json.long, expires)
}

static TOPOLOGY: LazyLock<String> =
    LazyLock::new(|| insert("INSERT OR REPLACE", "network_topology", &[&KEY, &TopologyRow::names(), &["expires_at"]]));

static EVENTS: LazyLock<String> =
    LazyLock::new(|| insert("INSERT OR REPLACE", "training_events", &[&KEY, &EventRow::names(), &["expires_at"]]));

/// Writes a row of an event table.
fn event(
    statement: &mut CachedStatement<'_>,
    key: &EventKey,
    row: &impl StoredRow,
    expires: Option<Micros>,
) -> rusqlite::Result<()> {
    let buffer = &mut buffer();
    let key = [
        StoredValue::Column(ColumnValue::Text(Some(text(key.run_id, buffer)))),
        StoredValue::Time(Some(key.timestamp)),
        StoredValue::Column(ColumnValue::BigInt(Some(key.event_id))),
    ];
    let values = key.into_iter().chain(row.values()).chain([StoredValue::Time(expires)]);
    statement.execute(params_from_iter(values)).map(drop)
}

/// Writes a row of a table partitioned by day.
fn of_day(
    statement: &mut CachedStatement<'_>,
    at: Micros,
    row: &impl StoredRow,
    expires: Option<Micros>,
) -> rusqlite::Result<()> {
    let day = encode::day(at);
    let day = StoredValue::Column(ColumnValue::Text(Some(&day)));
    let values = iter::once(day).chain(row.values()).chain([StoredValue::Time(expires)]);
    statement.execute(params_from_iter(values)).map(drop)
}

/// A later description of a dataset extends the earlier one: absent columns keep their value.
static DATASETS: LazyLock<String> = LazyLock::new(|| {
    let names = DatasetRow::names();
    let updates: Vec<_> = names[1..].iter().map(|name| format!("{name} = COALESCE(excluded.{name}, {name})")).collect();
    let insert = insert("INSERT", "dataset_info", &[&names]);
    format!("{insert} ON CONFLICT ({}) DO UPDATE SET {}", names[0], updates.join(", "))
});

/// The record written at receipt has no outcome; its replay must not clear an outcome that was added later.
static CONTROL: LazyLock<String> = LazyLock::new(|| {
    let insert = insert("INSERT", "control_log", &[&["day"], &ControlRow::names(), &["expires_at"]]);
    format!(
        "{insert} ON CONFLICT (day, timestamp, event_id, instance) DO UPDATE SET
         command = excluded.command, command_id = COALESCE(excluded.command_id, command_id),
         target = COALESCE(excluded.target, target), source = excluded.source,
         outcome = COALESCE(excluded.outcome, outcome), payload_json = excluded.payload_json,
         expires_at = excluded.expires_at"
    )
});

static GAPS: LazyLock<String> =
    LazyLock::new(|| insert("INSERT OR REPLACE", "ingest_gaps", &[&["day"], &GapRow::names(), &["expires_at"]]));

static RUNS: LazyLock<String> =
    LazyLock::new(|| insert("INSERT OR REPLACE", "training_runs", &[&RunRow::names(), &["non_finite"]]));

/// Writes the present columns of `change` and moves the index entry, all within the caller's transaction, so that reading the row
/// first is safe and a reader sees each run exactly once.
pub(super) fn write_run(
    connection: &Connection,
    change: &RunRow,
    stored_start: Option<Micros>,
) -> rusqlite::Result<()> {
    let stored = read::run(connection, change.run_id)?;
    let old_start = stored.as_ref().and_then(|row| row.start_time);
    let mut row = stored.unwrap_or_else(|| RunRow { run_id: change.run_id, ..RunRow::default() });
    crate::store::merge::apply(change, &mut row);
    put_run(connection, &row)?;
    if let Some(start) = row.start_time {
        let run_id = &mut buffer();
        let run_id = text(row.run_id, run_id);
        connection
            .prepare_cached("INSERT OR IGNORE INTO runs_by_month (month, start_time, run_id) VALUES (?1, ?2, ?3)")?
            .execute(params![encode::month(start), start, run_id])?;
        for old in [old_start, stored_start].into_iter().flatten().filter(|old| *old != start) {
            delete_entry(connection, old, run_id)?;
        }
    }
    Ok(())
}

/// Deletes the index entry of a run under a start time.
pub(super) fn delete_entry(connection: &Connection, start: Micros, run_id: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM runs_by_month WHERE month = ?1 AND start_time = ?2 AND run_id = ?3")?
        .execute(params![encode::month(start), start, run_id])
        .map(drop)
}

/// Adds names to those of a run.
pub(super) fn write_names(connection: &Connection, run_id: Uuid, names: &[String]) -> rusqlite::Result<()> {
    let buffer = &mut buffer();
    let run_id = text(run_id, buffer);
    let mut statement =
        connection.prepare_cached("INSERT OR IGNORE INTO run_metric_names (run_id, name) VALUES (?1, ?2)")?;
    names.iter().try_for_each(|name| statement.execute(params![run_id, name]).map(drop))
}

fn put_run(connection: &Connection, row: &RunRow) -> rusqlite::Result<()> {
    let nan = encode::nan_columns(RunRow::COLUMNS.iter().zip(row.values()).map(|(column, value)| match value {
        StoredValue::Column(value) => (column.name, value.number()),
        _ => (column.name, None),
    }));
    let mut values: Vec<_> = row.values().collect();
    values.push(StoredValue::Column(ColumnValue::Text(nan.as_deref())));
    connection.prepare_cached(&RUNS)?.execute(params_from_iter(values)).map(drop)
}

fn buffer() -> [u8; Hyphenated::LENGTH] {
    [0; Hyphenated::LENGTH]
}

/// The lower-case text of a UUID, without an allocation.
fn text(id: Uuid, buffer: &mut [u8; Hyphenated::LENGTH]) -> &str {
    id.as_hyphenated().encode_lower(buffer)
}
