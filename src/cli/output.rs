//! Standard output: lines, JSON, tables, bytes; and the permissions of output files.

use std::{
    io::{self, Write},
    path::Path,
};

use serde::Serialize;
use serde_json::Value;

use super::{
    CliError,
    cells::{self, FieldColumn},
    colour, field_names,
    table::{self, Cell, Column, Table},
    width,
};
use crate::terminal;

/// What is told beside a table of records.
pub struct Told {
    /// Fields that the command says outside of the table.
    pub elsewhere: &'static [&'static str],
    /// What shows the fields that are left out.
    pub shown_by: &'static str,
}

/// Fields that a table has no column for.
pub struct Further {
    pub names: Vec<String>,
    /// What shows them.
    pub shown_by: &'static str,
}

impl Default for Further {
    fn default() -> Self {
        Self { names: Vec::new(), shown_by: "a wider terminal or --json shows them" }
    }
}

/// Permissions of a file that a command writes.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Permissions {
    /// Permissions of the file, in octal as for chmod: 0644 lets every user read it, 0640 its group.
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

/// Writes a message to standard output; wrapped where a terminal is narrower.
///
/// # Errors
/// When standard output cannot be written; [`CliError::OutputClosed`] when its reader has closed it (`| head`).
pub fn line(text: &str) -> Result<(), CliError> {
    match terminal::stdout_columns() {
        None => verbatim(text),
        Some(columns) => {
            let lines = text.split('\n').flat_map(|line| wrapped(line, columns));
            lines.into_iter().try_for_each(|line| verbatim(&line))
        }
    }
}

/// A line wrapped; a comment of a statement stays one.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    const COMMENT: &str = "-- ";
    match text.strip_prefix(COMMENT) {
        Some(comment) => width::wrap(comment, columns.saturating_sub(COMMENT.len()).max(1))
            .into_iter()
            .map(|line| format!("{COMMENT}{line}"))
            .collect(),
        None => width::wrap(text, columns).into_iter().map(str::to_owned).collect(),
    }
}

/// Writes a line that is not wrapped.
///
/// # Errors
/// As [`line`].
pub fn verbatim(text: &str) -> Result<(), CliError> {
    writeln!(terminal::stdout(), "{text}").map_err(failed)
}

/// Writes a line that may have our colours; everything received was escaped before.
fn styled(text: &str) -> Result<(), CliError> {
    if colour::is_on() { writeln!(terminal::coloured_stdout(), "{text}").map_err(failed) } else { verbatim(text) }
}

/// Writes how to get the rows after these: the flag with its cursor, which cannot be cut.
///
/// # Errors
/// As [`line`].
pub fn more(flag: &str, cursor: &str) -> Result<(), CliError> {
    verbatim("")?;
    let text = format!("more with {flag} {cursor}");
    match terminal::stdout_columns() {
        Some(columns) if width::columns(&text) > columns => {
            line(&format!("more with a higher --limit, or with {flag} and `next` of --json"))
        }
        _ => verbatim(&text),
    }
}

/// Writes an error to standard error; wrapped where a terminal is narrower.
pub fn error(text: &str) {
    match terminal::stderr_columns() {
        None => terminal::print_notice(format_args!("{text}")),
        Some(columns) => {
            let lines = text.split('\n').flat_map(|line| width::wrap(line, columns));
            lines.for_each(|line| terminal::print_notice(format_args!("{line}")));
        }
    }
}

/// Writes one JSON value on a line of its own.
///
/// # Errors
/// As [`line`].
pub fn json(value: &impl Serialize) -> Result<(), CliError> {
    let mut out = terminal::stdout();
    serde_json::to_writer(&mut out, value).map_err(io::Error::from).and_then(|()| out.write_all(b"\n")).map_err(failed)
}

/// Moves to the top of a terminal and clears it, so that what follows replaces what was shown; elsewhere nothing.
///
/// # Errors
/// As [`line`].
pub fn redraw() -> Result<(), CliError> {
    terminal::clear().map_err(failed)
}

/// Writes what is buffered.
///
/// # Errors
/// As [`line`].
pub fn flush() -> Result<(), CliError> {
    terminal::stdout().flush().map_err(failed)
}

/// Refuses a file whose directory is not there.
///
/// # Errors
/// When it is not.
pub fn require_directory_of(file: &Path) -> Result<(), CliError> {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.exists());
    dir.map_or(Ok(()), |dir| Err(CliError::NegativeAnswer(format!("there is no directory `{}`", dir.display()))))
}

/// Why standard output cannot be written.
pub fn failed(error: io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::OutputClosed,
        _ => CliError::failed("failed to write to standard output", error),
    }
}

/// Writes a table, and which of its columns do not fit.
///
/// # Errors
/// As [`line`].
pub fn rows(columns: &[Column], rows: &[Vec<Cell>]) -> Result<(), CliError> {
    let mut table = Table::new(columns.to_vec());
    more_rows(&mut table, rows, &Further::default())
}

/// Writes records as a table of these columns, and which of their fields it does not show.
///
/// # Errors
/// As [`line`].
pub fn records(fields: &[FieldColumn], records: &[Value], told: &Told) -> Result<(), CliError> {
    let mut table = Table::new(cells::columns(fields));
    let rows: Vec<_> = records.iter().map(|record| cells::row(fields, record)).collect();
    let shown = fields.iter().map(|field| field.name).chain(told.elsewhere.iter().copied());
    let names = cells::further(records, &shown.collect::<Vec<_>>());
    more_rows(&mut table, &rows, &Further { names, shown_by: told.shown_by })
}

/// Writes further rows of a table, and what it does not show, unless that was said before.
///
/// # Errors
/// As [`line`].
pub fn more_rows(table: &mut Table, rows: &[Vec<Cell>], further: &Further) -> Result<(), CliError> {
    table.lines(rows).iter().try_for_each(|line| styled(line))?;
    not_shown(&table.not_shown(&further.names), further.shown_by)
}

/// Writes which fields are not shown, and what shows them; nothing where there are none.
///
/// # Errors
/// As [`line`].
pub fn not_shown(names: &[String], shown_by: &str) -> Result<(), CliError> {
    if names.is_empty() {
        return Ok(());
    }
    let names = field_names::listed(names.iter().map(String::as_str));
    line(&format!("not shown here: {names}; {shown_by}"))
}

/// Writes a table of text. Where there is no room, the columns on the right go first.
///
/// # Errors
/// As [`line`].
pub fn table(headers: &[&str], cells: Vec<Vec<String>>) -> Result<(), CliError> {
    let columns: Vec<_> = headers.iter().zip(0..).map(|(header, rank)| Column::named(header, rank)).collect();
    let row = |cells: &Vec<String>| cells.iter().map(|cell| table::text(Some(cell))).collect();
    rows(&columns, &cells.iter().map(row).collect::<Vec<_>>())
}

/// Writes names and values, one beside the other.
///
/// # Errors
/// As [`line`].
pub fn fields(fields: &[(String, Cell)]) -> Result<(), CliError> {
    table::field_lines(fields, terminal::stdout_columns()).iter().try_for_each(|line| styled(line))
}

/// A JSON value as a cell: text without quotes, nothing for null.
pub fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => crate::logging::Untrusted(text.as_bytes()).to_string(),
        Some(other) => other.to_string(),
    }
}

/// Writes bytes; unescaped, unless standard output is a terminal.
pub fn bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = terminal::stdout();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(failed)
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
