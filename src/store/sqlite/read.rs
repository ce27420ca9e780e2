//! Read queries, bounded, on a separate connection.

use std::{ops::ControlFlow, sync::LazyLock};

use rusqlite::{Connection, OptionalExtension, Row as Stored, ToSql, params};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{encode, long};
use crate::{
    event::{
        ControlRow, DatasetRow, EventKey, EventRow, GapRow, METRIC_COLUMNS, MemSize, MetricColumns, MetricsRow,
        ReadColumns, RunRow, SharedText, TopologyRow,
    },
    store::{DaysQuery, METRIC_NAMES_MAX, RangeQuery, RunsQuery, Seqs},
    units::{Micros, now},
};

/// The stored row of a run.
pub(super) fn run(connection: &Connection, run_id: Uuid) -> rusqlite::Result<Option<RunRow>> {
    let mut statement = connection.prepare_cached("SELECT * FROM training_runs WHERE run_id = ?1")?;
    statement.query_row([run_id.to_string()], to_run).optional()
}

/// The names of a run's extra metrics.
pub(super) fn metric_names(connection: &Connection, run_id: Uuid) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached("SELECT name FROM run_metric_names WHERE run_id = ?1 ORDER BY name LIMIT ?2")?
        .query_map(params![run_id.to_string(), METRIC_NAMES_MAX as i64], |row| row.get(0))?
        .collect()
}

/// Whether the index has the run under this start time.
pub(super) fn is_listed(connection: &Connection, run_id: Uuid, start: Micros) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM runs_by_month WHERE month = ?1 AND start_time = ?2 AND run_id = ?3";
    connection.prepare_cached(sql)?.exists((encode::month(start), start, run_id.to_string()))
}

/// The newest runs, in the order of the index.
pub(super) fn runs(connection: &Connection, query: &RunsQuery) -> rusqlite::Result<Vec<RunRow>> {
    // CROSS JOIN: the index determines the order; rows are looked up one by one until the limit is reached.
    let mut sql = String::from(
        "SELECT r.* FROM runs_by_month m CROSS JOIN training_runs r
         ON r.run_id = m.run_id AND r.start_time = m.start_time WHERE true",
    );
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    let mut add = |sql: &mut String, condition: &str, value: Box<dyn ToSql>| {
        values.push(value);
        sql.push_str(&condition.replace('$', &format!("?{}", values.len())));
    };
    if let Some(status) = &query.status {
        add(&mut sql, " AND r.status = $", Box::new(status.clone()));
    }
    if let Some(dataset) = &query.dataset {
        add(&mut sql, " AND r.dataset_name = $", Box::new(dataset.clone()));
    }
    if let Some((start, run_id)) = query.before {
        add(&mut sql, " AND m.month <= $", Box::new(encode::month(start)));
        add(&mut sql, " AND (m.start_time < $", Box::new(start));
        add(&mut sql, " OR (m.start_time = $", Box::new(start));
        add(&mut sql, " AND m.run_id > $))", Box::new(run_id.to_string()));
    }
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    add(&mut sql, " ORDER BY m.month DESC, m.start_time DESC, m.run_id LIMIT $", Box::new(limit));
    let values: Vec<&dyn ToSql> = values.iter().map(|value| &**value).collect();
    let mut statement = connection.prepare_cached(&sql)?;
    let (mut all, mut bytes) = (Vec::new(), 0);
    for run in statement.query_map(values.as_slice(), to_run)? {
        let run = run?;
        bytes += run.bytes();
        all.push(run);
        if bytes >= query.bytes {
            break;
        }
    }
    Ok(all)
}

/// Metrics of a run.
pub(super) fn metrics(connection: &Connection, query: &RangeQuery) -> rusqlite::Result<Vec<MetricsRow>> {
    range(connection, "training_metrics_rows", &METRICS, query, |row| to_metrics(connection, query.run_id, row))
}

/// The `seq` of metrics of a run.
pub(super) fn seqs(connection: &Connection, query: &RangeQuery) -> rusqlite::Result<Seqs> {
    let columns = "run_id, timestamp, event_id, seq";
    let mut all = Vec::new();
    each_of(connection, "training_metrics_rows", columns, query, |row| {
        all.push((to_key(row)?, row.get("seq")?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(all)
}

/// Topology snapshots of a run.
pub(super) fn topology(connection: &Connection, query: &RangeQuery) -> rusqlite::Result<Vec<TopologyRow>> {
    let text = long::unless_large("topology_json");
    let columns = format!(
        "run_id, timestamp, event_id, epoch, input_size, output_size, hidden_units, total_parameters, weights_summary, {text}, rowid"
    );
    range(connection, "network_topology", &columns, query, |row| {
        Ok(TopologyRow {
            key: to_key(row)?,
            epoch: row.get("epoch")?,
            input_size: row.get("input_size")?,
            output_size: row.get("output_size")?,
            hidden_units: row.get("hidden_units")?,
            total_parameters: row.get("total_parameters")?,
            topology_json: whole(connection, "network_topology", "topology_json", row)?,
            weights_summary: row.get("weights_summary")?,
        })
    })
}

/// Events of a run.
pub(super) fn events(connection: &Connection, query: &RangeQuery) -> rusqlite::Result<Vec<EventRow>> {
    let columns = format!("run_id, timestamp, event_id, type, {}, epoch, rowid", long::unless_large("payload_json"));
    range(connection, "training_events", &columns, query, |row| {
        Ok(EventRow {
            key: to_key(row)?,
            r#type: row.get("type")?,
            payload_json: whole(connection, "training_events", "payload_json", row)?,
            epoch: row.get("epoch")?,
        })
    })
}

/// A text that may be large and is never NULL.
fn whole(connection: &Connection, table: &str, column: &str, row: &Stored<'_>) -> rusqlite::Result<SharedText> {
    match row.get(column)? {
        Some(text) => Ok(text),
        None => Ok(long::large(connection, table, column, row.get("rowid")?)?.into()),
    }
}

/// Whole rows within the limits of the query.
fn range<T: MemSize>(
    connection: &Connection,
    table: &str,
    columns: &str,
    query: &RangeQuery,
    mut to_row: impl FnMut(&Stored<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let (mut all, mut bytes) = (Vec::new(), 0);
    each_of(connection, table, columns, query, |row| {
        let row = to_row(row)?;
        bytes += row.bytes();
        all.push(row);
        Ok(if bytes >= query.bytes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(all)
}

/// Passes these columns of each row of a range, in order, to the callback until it breaks.
pub(super) fn each_of(
    connection: &Connection,
    table: &str,
    columns: &str,
    query: &RangeQuery,
    mut each: impl FnMut(&Stored<'_>) -> rusqlite::Result<ControlFlow<()>>,
) -> rusqlite::Result<()> {
    let outermost = if query.ascending { (i64::MIN, i64::MIN) } else { (i64::MAX, i64::MAX) };
    let after = query.after.unwrap_or(outermost);
    // The cursor also narrows the range, so that the key's B-tree is entered there at any page depth.
    let (mut start, mut end) = (query.start.unwrap_or(i64::MIN), query.end.unwrap_or(i64::MAX));
    if query.ascending {
        start = start.max(after.0);
    } else {
        end = end.min(after.0);
    }
    let mut statement = connection.prepare_cached(&range_sql(table, columns, query))?;
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let values = params![query.run_id.to_string(), start, end, after.0, after.1, now(), limit];
    let mut rows = statement.query(values)?;
    while let Some(row) = rows.next()? {
        if each(row)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// The statement that reads a range; its parameters are those of [`each_of`].
pub(super) fn range_sql(table: &str, columns: &str, query: &RangeQuery) -> String {
    let (order, beyond) = if query.ascending { ("ASC", ">") } else { ("DESC", "<") };
    format!(
        "SELECT {columns} FROM {table} WHERE run_id = ?1 AND timestamp >= ?2 AND timestamp <= ?3
         AND (timestamp, event_id) {beyond} (?4, ?5) AND (expires_at IS NULL OR expires_at > ?6)
         ORDER BY timestamp {order}, event_id {order} LIMIT ?7"
    )
}

/// Number of metrics rows of a run.
pub(super) fn count_metrics(connection: &Connection, run_id: Uuid) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(
            "SELECT COUNT(*) FROM training_metrics_rows WHERE run_id = ?1 AND (expires_at IS NULL OR expires_at > ?2)",
        )?
        .query_row(params![run_id.to_string(), now()], |row| row.get::<_, i64>(0))
        .map(i64::unsigned_abs)
}

/// One dataset.
pub(super) fn dataset(connection: &Connection, dataset_id: Uuid) -> rusqlite::Result<Option<DatasetRow>> {
    connection
        .prepare_cached("SELECT * FROM dataset_info WHERE dataset_id = ?1")?
        .query_row([dataset_id.to_string()], |row| {
            Ok(DatasetRow {
                dataset_id: uuid(row, "dataset_id")?,
                name: row.get("name")?,
                description: row.get("description")?,
                num_samples: row.get("num_samples")?,
                num_features: row.get("num_features")?,
                num_classes: row.get("num_classes")?,
                class_distribution: encode::read_counts(row.get::<_, Option<String>>("class_distribution")?.as_deref()),
                created_at: row.get("created_at")?,
                file_path: row.get("file_path")?,
                checksum: row.get("checksum")?,
            })
        })
        .optional()
}

/// Recorded gaps, newest first.
pub(super) fn gaps(connection: &Connection, query: &DaysQuery) -> rusqlite::Result<Vec<GapRow>> {
    let table = DaysTable { name: "ingest_gaps", time: "started_at", then_by: "gap_id DESC" };
    days(connection, table, query, |row| {
        Ok(GapRow {
            started_at: row.get("started_at")?,
            gap_id: uuid(row, "gap_id")?,
            ended_at: row.get("ended_at")?,
            reason: row.get("reason")?,
            source: row.get("source")?,
            channel: row.get("channel")?,
            instance: row.get("instance")?,
            run_id: row.get::<_, Option<String>>("run_id")?.and_then(|id| Uuid::try_parse(&id).ok()),
            lost: row.get("lost")?,
        })
    })
}

/// Recorded control commands, newest first.
pub(super) fn control_log(connection: &Connection, query: &DaysQuery) -> rusqlite::Result<Vec<ControlRow>> {
    let table = DaysTable { name: "control_log", time: "timestamp", then_by: "event_id DESC, instance" };
    days(connection, table, query, |row| {
        Ok(ControlRow {
            timestamp: row.get("timestamp")?,
            event_id: row.get("event_id")?,
            instance: row.get("instance")?,
            command: row.get("command")?,
            command_id: row.get("command_id")?,
            target: row.get("target")?,
            source: row.get("source")?,
            outcome: row.get("outcome")?,
            payload_json: row.get("payload_json")?,
        })
    })
}

/// A table with a partition for each day.
struct DaysTable {
    name: &'static str,
    /// The column of the time, newest first within a day.
    time: &'static str,
    /// The order of rows of one time.
    then_by: &'static str,
}

fn days<T>(
    connection: &Connection,
    table: DaysTable,
    query: &DaysQuery,
    to_row: impl FnMut(&Stored<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let DaysTable { name, time, then_by } = table;
    let sql = format!(
        "SELECT * FROM {name} WHERE day >= ?1 AND day <= ?2 AND {time} >= ?3 AND {time} <= ?4
         AND (expires_at IS NULL OR expires_at > ?5) ORDER BY day DESC, {time} DESC, {then_by} LIMIT ?6"
    );
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let (first, last) = (encode::day(query.start), encode::day(query.end));
    connection
        .prepare_cached(&sql)?
        .query_map(params![first, last, query.start, query.end, now(), limit], to_row)?
        .collect()
}

fn uuid(row: &Stored<'_>, column: &str) -> rusqlite::Result<Uuid> {
    let text: String = row.get(column)?;
    Uuid::try_parse(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(text.len(), rusqlite::types::Type::Text, Box::new(error))
    })
}

fn to_key(row: &Stored<'_>) -> rusqlite::Result<EventKey> {
    Ok(EventKey { run_id: uuid(row, "run_id")?, timestamp: row.get("timestamp")?, event_id: row.get("event_id")? })
}

fn non_finite(row: &Stored<'_>) -> rusqlite::Result<Option<Map<String, Value>>> {
    let text: Option<String> = row.get("non_finite")?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// The columns of metrics rows, read by position: a lookup by name is too slow for millions of rows.
static METRICS: LazyLock<String> = LazyLock::new(|| {
    let columns: Vec<_> = METRIC_COLUMNS.iter().map(|column| column.name).collect();
    format!("timestamp, event_id, {}, extra, rest_json, non_finite", columns.join(", "))
});
const FIRST_COLUMN: usize = 2;
const EXTRA: usize = FIRST_COLUMN + METRIC_COLUMNS.len();
const REST_JSON: usize = EXTRA + 1;
const NON_FINITE: usize = REST_JSON + 1;

/// The columns of a stored row, with the names of NaN columns.
struct StoredColumns<'r, 's> {
    row: &'r Stored<'s>,
    nan: Option<Map<String, Value>>,
}

impl ReadColumns<String> for StoredColumns<'_, '_> {
    type Error = rusqlite::Error;

    fn int(&mut self, at: usize) -> rusqlite::Result<Option<i32>> {
        self.row.get(FIRST_COLUMN + at)
    }

    fn bigint(&mut self, at: usize) -> rusqlite::Result<Option<i64>> {
        self.row.get(FIRST_COLUMN + at)
    }

    fn double(&mut self, at: usize) -> rusqlite::Result<Option<f64>> {
        Ok(encode::read_nan(self.row.get(FIRST_COLUMN + at)?, METRIC_COLUMNS[at].name, self.nan.as_ref()))
    }

    fn text(&mut self, at: usize) -> rusqlite::Result<Option<String>> {
        self.row.get(FIRST_COLUMN + at)
    }
}

fn to_metrics(connection: &Connection, run_id: Uuid, row: &Stored<'_>) -> rusqlite::Result<MetricsRow> {
    let key = EventKey { run_id, timestamp: row.get(0)?, event_id: row.get(1)? };
    let nan = text(row, NON_FINITE)?.and_then(|text| serde_json::from_str(text).ok());
    Ok(MetricsRow {
        key,
        columns: MetricColumns::read(&mut StoredColumns { row, nan })?,
        extra: match text(row, EXTRA)? {
            Some(long::MARKER) => encode::read_numbers(long::extra(connection, &key)?.as_deref()),
            in_row => encode::read_numbers(in_row),
        },
        rest_json: match text(row, REST_JSON)? {
            Some(long::MARKER) => long::rest_json(connection, &key)?.map(Into::into),
            in_row => in_row.map(Into::into),
        },
    })
}

/// A text borrowed from the row.
pub(super) fn text<'a>(row: &'a Stored<'_>, at: usize) -> rusqlite::Result<Option<&'a str>> {
    row.get_ref(at)?
        .as_str_or_null()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(error)))
}

fn to_run(row: &Stored<'_>) -> rusqlite::Result<RunRow> {
    let nan = non_finite(row)?;
    let double = |column: &str| Ok::<_, rusqlite::Error>(encode::read_nan(row.get(column)?, column, nan.as_ref()));
    Ok(RunRow {
        run_id: uuid(row, "run_id")?,
        run_name: row.get("run_name")?,
        start_time: row.get("start_time")?,
        end_time: row.get("end_time")?,
        duration_seconds: row.get("duration_seconds")?,
        status: row.get("status")?,
        dataset_name: row.get("dataset_name")?,
        dataset_size: row.get("dataset_size")?,
        config_json: row.get("config_json")?,
        final_epoch: row.get("final_epoch")?,
        final_train_loss: double("final_train_loss")?,
        final_train_accuracy: double("final_train_accuracy")?,
        final_val_loss: double("final_val_loss")?,
        final_val_accuracy: double("final_val_accuracy")?,
        best_val_accuracy: double("best_val_accuracy")?,
        best_epoch: row.get("best_epoch")?,
        total_hidden_units: row.get("total_hidden_units")?,
        total_parameters: row.get("total_parameters")?,
        notes: row.get("notes")?,
        tags: encode::read_set(row.get::<_, Option<String>>("tags")?.as_deref()),
        created_by: row.get("created_by")?,
        last_event_time: row.get("last_event_time")?,
        restarted_at: row.get("restarted_at")?,
    })
}
