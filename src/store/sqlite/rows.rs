//! INSERT and UPDATE statements, one per table, each idempotent.

use std::sync::LazyLock;

use rusqlite::{CachedStatement, Connection, ToSql, params, params_from_iter};
use uuid::{Uuid, fmt::Hyphenated};

use super::{
    encode,
    long::{LongTexts, TextPlacement},
    read,
};
use crate::{
    event::{ControlRow, DatasetRow, EventRow, GapRow, METRIC_COLUMNS, MetricsRow, Row, RunRow, Table, TopologyRow},
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
        Table::Metrics => METRICS.as_str(),
        Table::Topology => TOPOLOGY,
        Table::Events => EVENTS,
        Table::Datasets => DATASETS,
        Table::Control => CONTROL,
        Table::Gaps => GAPS,
    };
    let keep = retention.of(batch.table);
    let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    let expires = (keep > 0).then(|| now.saturating_add(keep));
    let mut statement = connection.prepare_cached(sql)?;
    let mut long_texts = LongTexts::for_rows(connection, &batch.rows)?;
    batch.rows.iter().try_for_each(|row| match row {
        Row::Metrics(row) => metrics(&mut statement, &mut long_texts, row, expires),
        Row::Topology(row) => topology(&mut statement, row, expires),
        Row::Event(row) => event(&mut statement, row, expires),
        Row::Dataset(row) => dataset(&mut statement, row),
        Row::Control(row) => control(&mut statement, row, expires),
        Row::Gap(row) => gap(&mut statement, row, expires),
    })
}

static METRICS: LazyLock<String> = LazyLock::new(|| {
    let columns: Vec<_> = METRIC_COLUMNS.iter().map(|column| column.name).collect();
    let marks = vec!["?"; columns.len()].join(", ");
    format!(
        "INSERT OR REPLACE INTO training_metrics_rows
        (run_id, timestamp, event_id, {}, extra, rest_json, non_finite, expires_at)
        VALUES (?, ?, ?, {marks}, ?, ?, ?, ?)",
        columns.join(", ")
    )
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

const TOPOLOGY: &str = "INSERT OR REPLACE INTO network_topology
    (run_id, timestamp, event_id, epoch, input_size, output_size, hidden_units, total_parameters, topology_json,
     weights_summary, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";

fn topology(statement: &mut CachedStatement<'_>, row: &TopologyRow, expires: Option<Micros>) -> rusqlite::Result<()> {
    statement.execute(params![
        text(row.key.run_id, &mut buffer()),
        row.key.timestamp,
        row.key.event_id,
        row.epoch,
        row.input_size,
        row.output_size,
        row.hidden_units,
        row.total_parameters,
        row.topology_json,
        row.weights_summary,
        expires,
    ])?;
    Ok(())
}

const EVENTS: &str = "INSERT OR REPLACE INTO training_events
    (run_id, timestamp, event_id, type, payload_json, epoch, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

fn event(statement: &mut CachedStatement<'_>, row: &EventRow, expires: Option<Micros>) -> rusqlite::Result<()> {
    let run_id = &mut buffer();
    let key = row.key;
    let run_id = text(key.run_id, run_id);
    statement.execute(params![
        run_id,
        key.timestamp,
        key.event_id,
        row.r#type,
        row.payload_json,
        row.epoch,
        expires
    ])?;
    Ok(())
}

/// A later description of a dataset extends the earlier one: absent columns keep their value.
const DATASETS: &str = "INSERT INTO dataset_info
    (dataset_id, name, description, num_samples, num_features, num_classes, class_distribution, created_at, file_path,
     checksum)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
    ON CONFLICT (dataset_id) DO UPDATE SET
     name = COALESCE(excluded.name, name), description = COALESCE(excluded.description, description),
     num_samples = COALESCE(excluded.num_samples, num_samples),
     num_features = COALESCE(excluded.num_features, num_features),
     num_classes = COALESCE(excluded.num_classes, num_classes),
     class_distribution = COALESCE(excluded.class_distribution, class_distribution),
     created_at = COALESCE(excluded.created_at, created_at), file_path = COALESCE(excluded.file_path, file_path),
     checksum = COALESCE(excluded.checksum, checksum)";

fn dataset(statement: &mut CachedStatement<'_>, row: &DatasetRow) -> rusqlite::Result<()> {
    statement.execute(params![
        text(row.dataset_id, &mut buffer()),
        row.name,
        row.description,
        row.num_samples,
        row.num_features,
        row.num_classes,
        encode::counts(&row.class_distribution),
        row.created_at,
        row.file_path,
        row.checksum,
    ])?;
    Ok(())
}

/// The record written at receipt has no outcome; its replay must not clear an outcome that was added later.
const CONTROL: &str = "INSERT INTO control_log
    (day, timestamp, event_id, instance, command, command_id, target, source, outcome, payload_json, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
    ON CONFLICT (day, timestamp, event_id, instance) DO UPDATE SET
     command = excluded.command, command_id = COALESCE(excluded.command_id, command_id),
     target = COALESCE(excluded.target, target), source = excluded.source,
     outcome = COALESCE(excluded.outcome, outcome), payload_json = excluded.payload_json,
     expires_at = excluded.expires_at";

fn control(statement: &mut CachedStatement<'_>, row: &ControlRow, expires: Option<Micros>) -> rusqlite::Result<()> {
    statement.execute(params![
        encode::day(row.timestamp),
        row.timestamp,
        row.event_id,
        row.instance,
        row.command,
        row.command_id,
        row.target,
        row.source,
        row.outcome,
        row.payload_json,
        expires,
    ])?;
    Ok(())
}

const GAPS: &str = "INSERT OR REPLACE INTO ingest_gaps
    (day, started_at, gap_id, ended_at, reason, source, channel, instance, run_id, lost, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";

fn gap(statement: &mut CachedStatement<'_>, row: &GapRow, expires: Option<Micros>) -> rusqlite::Result<()> {
    statement.execute(params![
        encode::day(row.started_at),
        row.started_at,
        text(row.gap_id, &mut buffer()),
        row.ended_at,
        row.reason,
        row.source,
        row.channel,
        row.instance,
        row.run_id.map(|id| id.to_string()),
        row.lost,
        expires,
    ])?;
    Ok(())
}

const RUNS: &str = "INSERT OR REPLACE INTO training_runs
    (run_id, run_name, start_time, end_time, duration_seconds, status, dataset_name, dataset_size, config_json,
     final_epoch, final_train_loss, final_train_accuracy, final_val_loss, final_val_accuracy, best_val_accuracy,
     best_epoch, total_hidden_units, total_parameters, notes, tags, created_by, last_event_time, non_finite,
     restarted_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23,
     ?24)";

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
            connection
                .prepare_cached("DELETE FROM runs_by_month WHERE month = ?1 AND start_time = ?2 AND run_id = ?3")?
                .execute(params![encode::month(old), old, run_id])?;
        }
    }
    Ok(())
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
    let nan = encode::nan_columns([
        ("final_train_loss", row.final_train_loss),
        ("final_train_accuracy", row.final_train_accuracy),
        ("final_val_loss", row.final_val_loss),
        ("final_val_accuracy", row.final_val_accuracy),
        ("best_val_accuracy", row.best_val_accuracy),
    ]);
    connection.prepare_cached(RUNS)?.execute(params![
        text(row.run_id, &mut buffer()),
        row.run_name,
        row.start_time,
        row.end_time,
        row.duration_seconds,
        row.status,
        row.dataset_name,
        row.dataset_size,
        row.config_json,
        row.final_epoch,
        row.final_train_loss,
        row.final_train_accuracy,
        row.final_val_loss,
        row.final_val_accuracy,
        row.best_val_accuracy,
        row.best_epoch,
        row.total_hidden_units,
        row.total_parameters,
        row.notes,
        encode::set(&row.tags),
        row.created_by,
        row.last_event_time,
        nan,
        row.restarted_at,
    ])?;
    Ok(())
}

fn buffer() -> [u8; Hyphenated::LENGTH] {
    [0; Hyphenated::LENGTH]
}

/// The lower-case text of a UUID, without an allocation.
fn text(id: Uuid, buffer: &mut [u8; Hyphenated::LENGTH]) -> &str {
    id.as_hyphenated().encode_lower(buffer)
}
