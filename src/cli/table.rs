//! Cells of a table, and the table as wide as the terminal.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::{CliError, output};
use crate::{logging::Untrusted, render, units::Micros};

/// A cell of text, on the left.
pub fn text(value: Option<&str>) -> Cell {
    // It came from whoever may publish: no control character of theirs reaches the terminal.
    Cell::new(value.map_or_else(String::new, |value| Untrusted(value.as_bytes()).to_string()))
}

/// A cell of a whole number, on the right.
pub fn count<T: ToString>(value: Option<T>) -> Cell {
    Cell::new(value.map_or_else(String::new, |value| value.to_string())).set_alignment(CellAlignment::Right)
}

/// A cell of a number with a fraction: six significant digits are what fits and what people compare.
pub fn number(value: Option<f64>) -> Cell {
    let shown = value.map_or_else(String::new, |value| match value {
        0.0 => "0".into(),
        value if !value.is_finite() => value.to_string(),
        value if (1e-4..1e9).contains(&value.abs()) => {
            let shown = format!("{value:.6}");
            shown.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        value => format!("{value:.5e}"),
    });
    Cell::new(shown).set_alignment(CellAlignment::Right)
}

/// A cell of a time: UTC, to the second; JSON has the rest.
pub fn moment(value: Option<Micros>) -> Cell {
    Cell::new(value.map_or_else(String::new, |at| render::time(at)[..19].replace('T', " ")))
}

/// Writes a table, as wide as the terminal.
///
/// # Errors
/// When the output cannot be written.
pub fn table(headers: &[&str], rows: Vec<Vec<Cell>>) -> Result<(), CliError> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width() == Some(0) {
        table.set_width(assumed_width(std::env::var("COLUMNS").ok().as_deref()));
    }
    table.set_header(headers.to_vec()).add_rows(rows);
    output::line(&table.trim_fmt())
}

/// The width of a terminal that does not know its own: serial lines and `script` say 0.
fn assumed_width(columns: Option<&str>) -> u16 {
    columns.and_then(|columns| columns.parse().ok()).filter(|width| *width > 0).unwrap_or(80)
}
