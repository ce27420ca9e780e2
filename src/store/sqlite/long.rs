//! Long texts of metrics rows, stored in a separate table.
//!
//! The rows of a run are cells of a B-tree. A search reads every cell that it compares completely, so a text of megabytes would
//! make every later insert next to it read those megabytes again. For a long text the cell holds only [`MARKER`].

use rusqlite::{Connection, MAIN_DB, OptionalExtension, params};

use crate::{
    event::{EventKey, Row},
    memory::LARGE_VALUE,
    units::Micros,
};

/// Placeholder of a text that is stored in `training_metrics_long`.
pub(super) const MARKER: &str = "";

/// The longest text stored in its row. Up to one page, an insert next to such rows takes at most about twice as long as next to
/// short ones; at 32 KiB, fourteen times as long.
const IN_ROW_BYTES_MAX: usize = 4 << 10;

const UPSERT: &str =
    "INSERT OR REPLACE INTO training_metrics_long (run_id, timestamp, event_id, extra, rest_json, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const DELETE: &str = "DELETE FROM training_metrics_long WHERE run_id = ?1 AND timestamp = ?2 AND event_id = ?3";
const EXISTS_IN_RANGE: &str =
    "SELECT 1 FROM training_metrics_long WHERE run_id = ?1 AND timestamp BETWEEN ?2 AND ?3 LIMIT 1";
/// Placement of a text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TextPlacement<'a> {
    /// The value in the row.
    pub in_row: Option<&'a str>,
    /// The value in the table of long texts.
    pub long: Option<&'a str>,
}

impl<'a> TextPlacement<'a> {
    pub fn of(text: Option<&'a str>) -> Self {
        match text {
            // A text equal to the marker is stored as a long text, to keep them apart.
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
    /// Whether the run and time span of the batch may already have long texts.
    may_have_stored: bool,
}

impl<'a> LongTexts<'a> {
    /// Checks for stored long texts once per batch, so that an ordinary row needs no lookup.
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

    /// Writes the long texts of one row. If it has none, those of an earlier write are deleted.
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
            // The row may occur again in this batch.
            self.may_have_stored = true;
        } else if self.may_have_stored {
            self.connection.prepare_cached(DELETE)?.execute(row())?;
        }
        Ok(())
    }
}

/// The `extra` of a row whose cell holds the marker.
pub(super) fn extra(connection: &Connection, key: &EventKey) -> rusqlite::Result<Option<String>> {
    read(connection, "extra", key)
}

/// The `rest_json` of a row whose cell holds the marker.
pub(super) fn rest_json(connection: &Connection, key: &EventKey) -> rusqlite::Result<Option<String>> {
    read(connection, "rest_json", key)
}

/// Bypasses the view, in which SQLite would copy the text twice more.
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

/// SQL expression: a text column, or NULL when it is large. SQLite takes the length from the record header without reading the
/// text.
pub(super) fn unless_large(column: &str) -> String {
    format!("CASE WHEN octet_length({column}) < {LARGE_VALUE} THEN {column} END AS {column}")
}

/// Reads a large text through incremental blob I/O. As a statement's result it would be in memory twice, also in SQLite's buffer.
pub(super) fn large(connection: &Connection, table: &str, column: &str, rowid: i64) -> rusqlite::Result<String> {
    let blob = connection.blob_open(MAIN_DB, table, column, rowid, true)?;
    let mut text = vec![0; blob.len()];
    blob.read_at_exact(&mut text, 0)?;
    String::from_utf8(text).map_err(|error| rusqlite::Error::Utf8Error(0, error.utf8_error()))
}
