//! Read queries, bounded, on a separate connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::LazyLock,
};

use rusqlite::{Connection, OptionalExtension, Row as Stored, params};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{encode, long};
use crate::{
    event::{
        ControlRow, DatasetRow, EventKey, EventRow, GapRow, METRIC_COLUMNS, MemSize, MetricColumns, MetricsRow,
        ReadColumns, ReadStored, RunRow, SharedText, StoredRow, TopologyRow,
    },
    store::{DaysQuery, METRIC_NAMES_MAX, RangeQuery, Seqs},
    units::{Micros, now},
};

static RUN: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {} FROM training_runs WHERE run_id = ?1", run_columns()));

/// The stored row of a run.
pub(super) fn run(connection: &Connection, run_id: Uuid) -> rusqlite::Result<Option<RunRow>> {
    connection.prepare_cached(&RUN)?.query_row([run_id.to_string()], to_run).optional()
}

/// The columns that [`to_run`] reads.
fn run_columns() -> String {
    RunRow::names().into_iter().chain(["non_finite"]).collect::<Vec<_>>().join(", ")
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
    range(connection, "network_topology", &event_columns::<TopologyRow>("topology_json"), query, |row| {
        let topology_json = whole(connection, "network_topology", "topology_json", row)?;
        Ok(TopologyRow { topology_json, ..to_stored(row, 3)? })
    })
}

/// Events of a run.
pub(super) fn events(connection: &Connection, query: &RangeQuery) -> rusqlite::Result<Vec<EventRow>> {
    range(connection, "training_events", &event_columns::<EventRow>("payload_json"), query, |row| {
        let payload_json = whole(connection, "training_events", "payload_json", row)?;
        Ok(EventRow { payload_json, ..to_stored(row, 3)? })
    })
}

/// The key, the columns of a row with a `large` text, and the row id.
fn event_columns<T: StoredRow>(large: &str) -> String {
    let columns = T::names().into_iter().map(|name| if name == large { long::unless_large(name) } else { name.into() });
    format!("run_id, timestamp, event_id, {}, rowid", columns.collect::<Vec<_>>().join(", "))
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
        .prepare_cached(&format!("SELECT {} FROM dataset_info WHERE dataset_id = ?1", DatasetRow::names().join(", ")))?
        .query_row([dataset_id.to_string()], |row| to_stored(row, 0))
        .optional()
}

/// Recorded gaps, newest first.
pub(super) fn gaps(connection: &Connection, query: &DaysQuery) -> rusqlite::Result<Vec<GapRow>> {
    let table = DaysTable { name: "ingest_gaps", time: "started_at", then_by: "gap_id DESC" };
    days(connection, table, query)
}

/// Recorded control commands, newest first.
pub(super) fn control_log(connection: &Connection, query: &DaysQuery) -> rusqlite::Result<Vec<ControlRow>> {
    let table = DaysTable { name: "control_log", time: "timestamp", then_by: "event_id DESC, instance" };
    days(connection, table, query)
}

/// A table with a partition for each day.
struct DaysTable {
    name: &'static str,
    /// The column of the time, newest first within a day.
    time: &'static str,
    /// The order of rows of one time.
    then_by: &'static str,
}

fn days<T: StoredRow>(connection: &Connection, table: DaysTable, query: &DaysQuery) -> rusqlite::Result<Vec<T>> {
    let DaysTable { name, time, then_by } = table;
    let sql = format!(
        "SELECT {} FROM {name} WHERE day >= ?1 AND day <= ?2 AND {time} >= ?3 AND {time} <= ?4
         AND (expires_at IS NULL OR expires_at > ?5) ORDER BY day DESC, {time} DESC, {then_by} LIMIT ?6",
        T::names().join(", ")
    );
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let (first, last) = (encode::day(query.start), encode::day(query.end));
    connection
        .prepare_cached(&sql)?
        .query_map(params![first, last, query.start, query.end, now(), limit], |row| to_stored(row, 0))?
        .collect()
}

pub(super) fn parse_uuid(text: &str) -> rusqlite::Result<Uuid> {
    Uuid::try_parse(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(text.len(), rusqlite::types::Type::Text, Box::new(error))
    })
}

/// The key, from the first columns of the statement.
fn to_key(row: &Stored<'_>) -> rusqlite::Result<EventKey> {
    Ok(EventKey { run_id: parse_uuid(&row.get::<_, String>(0)?)?, timestamp: row.get(1)?, event_id: row.get(2)? })
}

fn non_finite(row: &Stored<'_>, at: usize) -> rusqlite::Result<Option<Map<String, Value>>> {
    Ok(text(row, at)?.and_then(|text| serde_json::from_str(text).ok()))
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
    /// Position of the first column in the statement.
    first: usize,
    nan: Option<Map<String, Value>>,
}

impl ReadColumns<String> for StoredColumns<'_, '_> {
    type Error = rusqlite::Error;

    fn int(&mut self, at: usize) -> rusqlite::Result<Option<i32>> {
        self.row.get(self.first + at)
    }

    fn bigint(&mut self, at: usize) -> rusqlite::Result<Option<i64>> {
        self.row.get(self.first + at)
    }

    fn double(&mut self, at: usize) -> rusqlite::Result<Option<f64>> {
        let stored = self.row.get(self.first + at)?;
        if self.nan.is_none() {
            return Ok(stored);
        }
        Ok(encode::read_nan(stored, self.row.as_ref().column_name(self.first + at)?, self.nan.as_ref()))
    }

    fn text(&mut self, at: usize) -> rusqlite::Result<Option<String>> {
        self.row.get(self.first + at)
    }
}

impl ReadStored for StoredColumns<'_, '_> {
    fn key(&mut self) -> rusqlite::Result<EventKey> {
        to_key(self.row)
    }

    fn id(&mut self, at: usize) -> rusqlite::Result<Option<Uuid>> {
        text(self.row, self.first + at)?.map(parse_uuid).transpose()
    }

    fn time(&mut self, at: usize) -> rusqlite::Result<Option<Micros>> {
        self.row.get(self.first + at)
    }

    fn flag(&mut self, at: usize) -> rusqlite::Result<Option<bool>> {
        self.row.get(self.first + at)
    }

    /// Left to [`whole`], which knows the table.
    fn document(&mut self, _: usize) -> rusqlite::Result<SharedText> {
        Ok(SharedText::default())
    }

    fn texts(&mut self, at: usize) -> rusqlite::Result<BTreeSet<String>> {
        Ok(encode::read_set(text(self.row, self.first + at)?))
    }

    fn counts(&mut self, at: usize) -> rusqlite::Result<BTreeMap<String, i32>> {
        Ok(encode::read_counts(text(self.row, self.first + at)?))
    }
}

fn to_metrics(connection: &Connection, run_id: Uuid, row: &Stored<'_>) -> rusqlite::Result<MetricsRow> {
    let key = EventKey { run_id, timestamp: row.get(0)?, event_id: row.get(1)? };
    let nan = non_finite(row, NON_FINITE)?;
    Ok(MetricsRow {
        key,
        columns: MetricColumns::read(&mut StoredColumns { row, first: FIRST_COLUMN, nan })?,
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

/// The columns of a row, from position `first` of the statement.
pub(super) fn to_stored<T: StoredRow>(row: &Stored<'_>, first: usize) -> rusqlite::Result<T> {
    T::read(&mut StoredColumns { row, first, nan: None })
}

pub(super) fn to_run(row: &Stored<'_>) -> rusqlite::Result<RunRow> {
    RunRow::read(&mut StoredColumns { row, first: 0, nan: non_finite(row, RunRow::COLUMNS.len())? })
}
