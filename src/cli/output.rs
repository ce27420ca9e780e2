//! Tables for people, JSON for programs.

use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde_json::Value;

use super::CliError;

/// Writes one line to standard output. A reader that has gone away (`| head`) is no error of ours.
pub fn line(text: &str) -> Result<(), CliError> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::failed("failed to write to standard output", error))
        }
        _ => Ok(()),
    }
}

/// Writes one JSON value on a line of its own.
pub fn json(value: &Value) -> Result<(), CliError> {
    line(&value.to_string())
}

/// Writes a table, as wide as the terminal.
pub fn table(headers: &[&str], rows: Vec<Vec<String>>) -> Result<(), CliError> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headers.to_vec()).add_rows(rows);
    line(&table.trim_fmt())
}

/// A JSON value as a cell: text without quotes, nothing for null.
pub fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => crate::logging::Untrusted(text.as_bytes()).to_string(),
        Some(other) => other.to_string(),
    }
}

/// Writes bytes as they are.
pub fn bytes(bytes: &[u8]) -> Result<(), CliError> {
    io::stdout().lock().write_all(bytes).map_err(|error| CliError::failed("failed to write to standard output", error))
}
