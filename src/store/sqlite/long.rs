//! The long texts of metrics rows, which lie in a table of their own.
//!
//! The rows of a run are the cells of a B-tree. A search there reads each cell that it compares, whole, so that one text of megabytes
//! would make every later insert beside it read those megabytes again. Of a long text the cell holds [`MARKER`] only.

use rusqlite::{Connection, OptionalExtension, params, types::FromSql};

use crate::{
    event::{EventKey, Row},
    units::Micros,
};

/// In place of a text that lies in `training_metrics_long`.
pub(super) const MARKER: &str = "";

/// The longest text that stays in its row. Up to a page an insert beside such rows takes at most about twice as long as beside
/// short ones, at 32 KiB fourteen times as long.
const BYTES_MAX: usize = 4 << 10;

const PUT: &str =
    "INSERT OR REPLACE INTO training_metrics_long (run_id, timestamp, event_id, extra, rest_json, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const DELETE: &str = "DELETE FROM training_metrics_long WHERE run_id = ?1 AND timestamp = ?2 AND event_id = ?3";
const ANY: &str = "SELECT 1 FROM training_metrics_long WHERE run_id = ?1 AND timestamp BETWEEN ?2 AND ?3 LIMIT 1";
const EXTRA: &str = "SELECT extra FROM training_metrics_long WHERE run_id = ?1 AND timestamp = ?2 AND event_id = ?3";
const REST_JSON: &str =
    "SELECT rest_json FROM training_metrics_long WHERE run_id = ?1 AND timestamp = ?2 AND event_id = ?3";

/// Where a text goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Split<'a> {
    /// What the row holds.
    pub in_row: Option<&'a str>,
    /// What the other table holds.
    pub long: Option<&'a str>,
}

impl<'a> Split<'a> {
    pub fn of(text: Option<&'a str>) -> Self {
        match text {
            // What looks like the marker is told apart by where it lies.
            Some(text) if text.len() > BYTES_MAX || text == MARKER => Self { in_row: Some(MARKER), long: Some(text) },
            in_row => Self { in_row, long: None },
        }
    }
}

/// Writes the long texts of a batch's rows.
pub(super) struct LongTexts<'a> {
    connection: &'a Connection,
    /// Whether there were any before in the run and the span of time of the batch.
    may_be_old: bool,
}

impl<'a> LongTexts<'a> {
    /// Looks once a batch what is there beside its rows, so that an ordinary row costs no search of its own.
    pub fn beside(connection: &'a Connection, rows: &[Row]) -> rusqlite::Result<Self> {
        let keys = || rows.iter().filter_map(|row| if let Row::Metrics(row) = row { Some(row.key) } else { None });
        let times = || keys().map(|key| key.timestamp);
        let may_be_old = match (keys().next(), times().min(), times().max()) {
            (Some(key), Some(first), Some(last)) => {
                connection.prepare_cached(ANY)?.exists(params![key.run_id.to_string(), first, last])?
            }
            _ => false,
        };
        Ok(Self { connection, may_be_old })
    }

    /// Writes those of one row. Where it has none, those of an earlier writing of the row are deleted.
    pub fn write(
        &self,
        key: &EventKey,
        extra: Option<&str>,
        rest_json: Option<&str>,
        expires: Option<Micros>,
    ) -> rusqlite::Result<()> {
        let row = || (key.run_id.to_string(), key.timestamp, key.event_id);
        if extra.is_some() || rest_json.is_some() {
            let (run_id, timestamp, event_id) = row();
            let values = params![run_id, timestamp, event_id, extra, rest_json, expires];
            self.connection.prepare_cached(PUT)?.execute(values)?;
        } else if self.may_be_old {
            self.connection.prepare_cached(DELETE)?.execute(row())?;
        }
        Ok(())
    }
}

/// The `extra` that a row marks as long.
pub(super) fn extra(connection: &Connection, key: &EventKey) -> rusqlite::Result<Option<String>> {
    read(connection, EXTRA, key)
}

/// The `rest_json` that a row marks as long.
pub(super) fn rest_json<T: FromSql>(connection: &Connection, key: &EventKey) -> rusqlite::Result<Option<T>> {
    read(connection, REST_JSON, key)
}

/// A statement of its own, and not the view: there SQLite would copy the text twice more.
fn read<T: FromSql>(connection: &Connection, sql: &str, key: &EventKey) -> rusqlite::Result<Option<T>> {
    let values = params![key.run_id.to_string(), key.timestamp, key.event_id];
    Ok(connection.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()?.flatten())
}
