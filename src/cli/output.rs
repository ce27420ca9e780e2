//! Tables for people, JSON for programs.

use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::Value;

use super::CliError;
use crate::terminal::{self, Escaped};

/// Permissions of a file that a command writes.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Permissions {
    /// Permissions of the file, in octal as for chmod: with 0644 everybody may read it, with 0640 its group.
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = mode, requires = "output")]
    pub mode: u32,
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode & !0o666 == 0 && mode & 0o600 == 0o600 => Ok(mode),
        _ => {
            Err("write it like 0640: 6 for the owner, and for group and others 0, 4 (read) or 6 (read and write)"
                .into())
        }
    }
}

/// Writes one line to standard output. A reader that has gone away (`| head`) is no error of ours.
///
/// # Errors
/// When standard output cannot be written.
pub fn line(text: &str) -> Result<(), CliError> {
    written(writeln!(terminal::stdout(), "{text}"))
}

/// Writes one JSON value on a line of its own.
///
/// # Errors
/// As [`line`].
pub fn json(value: &impl Serialize) -> Result<(), CliError> {
    let mut out = terminal::stdout();
    written(serde_json::to_writer(&mut out, value).map_err(io::Error::from).and_then(|()| out.write_all(b"\n")))
}

/// Writes what is buffered. Without a reader this fails, which ends a command that would write for ever.
///
/// # Errors
/// As [`line`].
pub fn flush() -> Result<(), CliError> {
    terminal::stdout().flush().map_err(failed)
}

fn written(result: io::Result<()>) -> Result<(), CliError> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(failed),
    }
}

fn failed(error: io::Error) -> CliError {
    CliError::failed("failed to write to standard output", error)
}

/// Writes a table, as wide as the terminal. No cell reaches beyond its place.
pub fn table(headers: &[&str], rows: Vec<Vec<String>>) -> Result<(), CliError> {
    let mut table = Table::new();
    let shown = |cells: Vec<String>| cells.iter().map(|cell| Escaped(cell).to_string()).collect::<Vec<_>>();
    let headers = headers.iter().map(|header| (*header).to_owned()).collect();
    table.load_style(presets::NOTHING).set_header(shown(headers)).add_rows(rows.into_iter().map(shown));
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

/// Writes bytes, to a program as they are.
pub fn bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = terminal::stdout();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_those_of_a_file_that_its_owner_can_use() {
        for (text, expected) in [("0600", Some(0o600)), ("644", Some(0o644)), ("0660", Some(0o660))] {
            assert_eq!(mode(text).ok(), expected);
        }
        for text in ["0755", "0400", "4600", "0800", "", "rw", "-600"] {
            assert!(mode(text).is_err(), "{text}");
        }
    }
}
