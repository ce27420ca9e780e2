//! The long texts of metrics rows, which lie in a table of their own.
//!
//! The rows of a run are the cells of a B-tree. A search there reads each cell that it compares, whole, so that one text of megabytes
//! would make every later insert beside it read those megabytes again. Of a long text the cell holds [`MARKER`] only.

use rusqlite::{Connection, MAIN_DB, OptionalExtension, params};

use crate::{
    event::{EventKey, Row},
    memory::LARGE_VALUE,
    units::Micros,
};

/// In place of a text that lies in `training_metrics_long`.
pub(super) const MARKER: &str = "";

/// The longest text that stays in its row. Up to a page an insert beside such rows takes at most about twice as long as beside
/// short ones, at 32 KiB fourteen times as long.
const IN_ROW_BYTES_MAX: usize = 4 << 10;

const UPSERT: &str =
    "INSERT OR REPLACE INTO training_metrics_long (run_id, timestamp, event_id, extra, rest_json, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const DELETE: &str = "DELETE FROM training_metrics_long WHERE run_id = ?1 AND timestamp = ?2 AND event_id = ?3";
const EXISTS_IN_RANGE: &str =
    "SELECT 1 FROM training_metrics_long WHERE run_id = ?1 AND timestamp BETWEEN ?2 AND ?3 LIMIT 1";
/// Where a text goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TextPlacement<'a> {
    /// What the row holds.
    pub in_row: Option<&'a str>,
    /// What the other table holds.
    pub long: Option<&'a str>,
}

impl<'a> TextPlacement<'a> {
    pub fn of(text: Option<&'a str>) -> Self {
        match text {
            // What looks like the marker is told apart by where it lies.
            Some(text) if text.len() > IN_ROW_BYTES_MAX || text == MARKER => {
                Self { in_row: Some(MARKER), long: Some(text) }
            }
            in_row => Self { in_row, long: None },
        }
    }
}

/// Writes the long texts of a batch's rows.
pub(super) struct LongTexts<'a> {
    connection: &'a Connection,
    /// Whether there may be any in the run and the span of time of the batch.
    may_have_stored: bool,
}

impl<'a> LongTexts<'a> {
    /// Looks once a batch what is there beside its rows, so that an ordinary row costs no search of its own.
    pub fn for_rows(connection: &'a Connection, rows: &[Row]) -> rusqlite::Result<Self> {
        let keys = || rows.iter().filter_map(|row| if let Row::Metrics(row) = row { Some(row.key) } else { None });
        let times = || keys().map(|key| key.timestamp);
        let may_be_old = match (keys().next(), times().min(), times().max()) {
            (Some(key), Some(first), Some(last)) => {
                connection.prepare_cached(EXISTS_IN_RANGE)?.exists(params![key.run_id.to_string(), first, last])?
            }
            _ => false,
        };
        Ok(Self { connection, may_have_stored: may_be_old })
    }

    /// Writes those of one row. Where it has none, those of an earlier writing of the row are deleted.
    pub fn write(
        &mut self,
        key: &EventKey,
        extra: Option<&str>,
        rest_json: Option<&str>,
        expires: Option<Micros>,
    ) -> rusqlite::Result<()> {
        let row = || (key.run_id.to_string(), key.timestamp, key.event_id);
        if extra.is_some() || rest_json.is_some() {
            let (run_id, timestamp, event_id) = row();
            let values = params![run_id, timestamp, event_id, extra, rest_json, expires];
            self.connection.prepare_cached(UPSERT)?.execute(values)?;
            // The row may come once more in this batch.
            self.may_have_stored = true;
        } else if self.may_have_stored {
            self.connection.prepare_cached(DELETE)?.execute(row())?;
        }
        Ok(())
    }
}

/// The `extra` that a row marks as long.
pub(super) fn extra(connection: &Connection, key: &EventKey) -> rusqlite::Result<Option<String>> {
    read(connection, "extra", key)
}

/// The `rest_json` that a row marks as long.
pub(super) fn rest_json(connection: &Connection, key: &EventKey) -> rusqlite::Result<Option<String>> {
    read(connection, "rest_json", key)
}

/// Not through the view: SQLite would copy the text twice more.
fn read(connection: &Connection, column: &str, key: &EventKey) -> rusqlite::Result<Option<String>> {
    let sql = format!(
        "SELECT rowid, octet_length({column}), {} FROM training_metrics_long
         WHERE run_id = ?1 AND timestamp = ?2 AND event_id = ?3",
        unless_large(column)
    );
    let values = params![key.run_id.to_string(), key.timestamp, key.event_id];
    let text = |row: &rusqlite::Row<'_>| match row.get(1)? {
        Some(length) if is_large(length) => large(connection, "training_metrics_long", column, row.get(0)?).map(Some),
        _ => row.get(2),
    };
    Ok(connection.prepare_cached(&sql)?.query_row(values, text).optional()?.flatten())
}

fn is_large(length: i64) -> bool {
    usize::try_from(length).is_ok_and(|length| length >= LARGE_VALUE)
}

/// An expression: the text of a column, NULL where it is large. SQLite learns the length of a text from the head of its record,
/// without the text.
pub(super) fn unless_large(column: &str) -> String {
    format!("CASE WHEN octet_length({column}) < {LARGE_VALUE} THEN {column} END AS {column}")
}

/// A large text of a table with row ids, read into its place. As the result of a statement it would be in memory twice: in SQLite's
/// own buffer, too.
pub(super) fn large(connection: &Connection, table: &str, column: &str, rowid: i64) -> rusqlite::Result<String> {
    let blob = connection.blob_open(MAIN_DB, table, column, rowid, true)?;
    let mut text = vec![0; blob.len()];
    blob.read_at_exact(&mut text, 0)?;
    String::from_utf8(text).map_err(|error| rusqlite::Error::Utf8Error(0, error.utf8_error()))
}
