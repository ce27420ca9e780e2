//! What is exported, and in which form.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    columns::{Columns, CsvStyle, HeadId},
    csv::{ExportRow, write_header},
};
use crate::{
    api::memory_budget::{MemoryBudget, Reservation},
    event::{EventRow, MetricsRow, TopologyRow},
    store::{METRIC_NAMES_MAX, Store},
    units::Micros,
};

/// The byte-order mark, by which spreadsheets recognise UTF-8.
pub const BOM: &str = "\u{feff}";

/// The tables that can be exported; the first by default.
pub const TABLES: [&str; 3] = ["training_metrics", "network_topology", "training_events"];

/// The columns of one of [`TABLES`], as the cells of the first line of a CSV file.
fn header(table: &str, style: &CsvStyle) -> Vec<String> {
    match table {
        "network_topology" => TopologyRow::header(style),
        "training_events" => EventRow::header(style),
        _ => MetricsRow::header(style),
    }
}

/// The first line of a CSV file with the fixed columns of one of [`TABLES`].
pub fn fixed_head(table: &str) -> String {
    let mut line = String::new();
    write_header(&mut line, &header(table, &CsvStyle { raw: true, columns: Columns::Fixed }));
    line
}

/// The metric columns in the first line of a CSV file, by its cells; `None`: it is no such line of metrics rows.
pub fn metric_columns(cells: &[String]) -> Option<HeadId> {
    let before = header(TABLES[0], &CsvStyle { raw: true, columns: Columns::Names(Arc::new([])) });
    let (first, last) = before.split_at(before.len() - 2);
    let metrics = cells.strip_prefix(first)?.strip_suffix(last)?;
    Some(HeadId::of(metrics, METRIC_NAMES_MAX))
}

/// The shape of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "their names")]
pub enum Format {
    Csv,
    Json,
    Ndjson,
}

impl Format {
    /// By its name; CSV when it is another.
    pub fn named(name: &str) -> Self {
        match name {
            "json" => Self::Json,
            "ndjson" => Self::Ndjson,
            _ => Self::Csv,
        }
    }

    /// The type of the body, and the end of a file's name.
    pub fn kind(self) -> (&'static str, &'static str) {
        match self {
            Self::Csv => ("text/csv; charset=utf-8", "csv"),
            Self::Json => ("application/json", "json"),
            Self::Ndjson => ("application/x-ndjson", "ndjson"),
        }
    }
}

/// One run of an export.
pub struct RunRange {
    /// The run.
    pub run_id: Uuid,
    /// When it began, for the gaps.
    pub start: Micros,
    /// Only rows after this key.
    pub after: Option<(Micros, i64)>,
}

/// An export.
pub struct ExportJob {
    /// The archive.
    pub store: Arc<dyn Store>,
    /// At least one, in order.
    pub ranges: Vec<RunRange>,
    /// First time.
    pub start: Option<Micros>,
    /// Last time.
    pub end: Option<Micros>,
    /// One of [`TABLES`].
    pub table: &'static str,
    /// Shape of the body.
    pub format: Format,
    /// Whether the trailer is a line of the body, too.
    pub trailer_line: bool,
    /// How CSV is written.
    pub style: CsvStyle,
    /// CSV: whether it begins with [`BOM`].
    pub bom: bool,
    /// The budget for the rows.
    pub memory: MemoryBudget,
    /// The memory of the names of columns.
    pub _names: Option<Reservation>,
}
