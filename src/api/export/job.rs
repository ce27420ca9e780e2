//! What is exported, and in which form.

use std::sync::Arc;

use uuid::Uuid;

use super::csv::ExportRow;
use crate::{
    api::memory_budget::MemoryBudget,
    event::{EventRow, MetricsRow, TopologyRow},
    store::Store,
    units::Micros,
};

/// The byte-order mark, by which spreadsheets recognise UTF-8.
pub const BOM: &str = "\u{feff}";

/// The tables that can be exported; the first by default.
pub const TABLES: [&str; 3] = ["training_metrics", "network_topology", "training_events"];

/// The columns of one of [`TABLES`], as the first line of a CSV file.
pub fn head(table: &str) -> String {
    match table {
        "network_topology" => TopologyRow::header(),
        "training_events" => EventRow::header(),
        _ => MetricsRow::header(),
    }
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
    /// CSV: whether texts are written unchanged, even those that a spreadsheet would run as formulas.
    pub raw: bool,
    /// CSV: whether it begins with [`BOM`].
    pub bom: bool,
    /// The budget for the rows.
    pub memory: MemoryBudget,
}
