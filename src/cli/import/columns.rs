//! The header of a CSV file: which field of a message each column is; and its rows, as messages of metrics.
//!
//! Columns have the names and aliases that fields of messages have; every other number becomes a metric under its own name. The
//! header of an export is recognised by its first columns; its `extra` and `rest_json` are unpacked, so that the row comes back.

use std::collections::BTreeSet;

use super::{
    csv::Record,
    row::{Row, is_metrics_column, text_token, token},
};
use crate::{
    api::{BOM, is_formula},
    render,
    units::Micros,
    wire::{FieldUse, field_use},
};

/// The first columns of an export.
const EXPORT_KEY: [&str; 3] = render::KEY_COLUMNS;
/// What an export puts in front of the name of a metric that is also the name of a column.
const CLASH_PREFIX: &str = "extra.";
/// Columns of an export beside those of metrics.
const OTHER_COLUMNS: [&str; 6] = ["run_id", "timestamp", "event_id", "extra", "rest_json", "non_finite"];
/// What W&B puts in front of its own columns.
const WANDB_PREFIX: char = '_';

/// The columns of a file.
#[derive(Debug)]
pub struct Columns {
    columns: Vec<Column>,
    /// Whether the file is an export.
    is_export: bool,
    /// Whether texts of an export are as they were.
    raw: bool,
}

#[derive(Debug, PartialEq)]
enum Column {
    Ignored,
    Run,
    Field {
        name: String,
        is_text: bool,
        is_time: bool,
    },
    /// A number in place of the column of its name.
    Clash(String),
    /// A JSON object of numbers.
    Extra,
    /// A JSON object of what no column holds.
    Rest,
}

/// What a row needs that the file may not say.
#[derive(Clone, Copy, Debug)]
pub struct Defaults<'a> {
    /// The run, in place of what the file says.
    pub run: Option<&'a str>,
    /// The run of a row that names none.
    pub fallback_run: Option<&'a str>,
    /// The time of a row of a file without times.
    pub time: Option<Micros>,
}

impl Columns {
    /// Reads the header.
    ///
    /// # Errors
    /// Why it is none of metrics.
    pub fn parse(header: &Record, raw: bool) -> Result<Self, String> {
        let mut names = Vec::new();
        for (n, cell) in header.cells.iter().enumerate() {
            let text = std::str::from_utf8(cell).map_err(|_| "the header is not UTF-8".to_owned())?;
            let text = if n == 0 { text.strip_prefix(BOM).unwrap_or(text) } else { text };
            names.push(text.to_owned());
        }
        let is_export = names.len() > EXPORT_KEY.len() && names.iter().zip(EXPORT_KEY).all(|(name, key)| name == key);
        for name in names.iter_mut().filter(|_| !is_export) {
            *name = name.trim().to_owned();
        }
        if let Some(name) = names.iter().find(|name| is_export && ["payload_json", "topology_json"].contains(&&***name))
        {
            return Err(format!("an export with `{name}` holds no metrics; import one of training_metrics"));
        }
        if let [only] = names.as_slice()
            && only.contains([';', '\t'])
        {
            return Err("the columns of a CSV file are separated by commas".into());
        }
        let all: BTreeSet<String> = names.iter().cloned().collect();
        let column = |name: &String| if is_export { export_column(name, raw) } else { column(name, &all) };
        let columns: Vec<_> = names.iter().map(column).collect();
        for (n, found) in columns.iter().enumerate() {
            if !matches!(found, Column::Ignored) && columns[..n].contains(found) {
                return Err(format!("the column `{}` is there twice", names[n]));
            }
        }
        if columns.iter().all(|column| matches!(column, Column::Ignored | Column::Run)) {
            return Err("the first line must name the columns, and none is named".into());
        }
        Ok(Self { columns, is_export, raw })
    }

    /// Whether rows have a time of their own.
    pub fn have_time(&self) -> bool {
        self.columns.iter().any(|column| matches!(column, Column::Field { is_time: true, .. }))
    }

    /// Whether this is the line with which an export may end.
    pub fn is_trailer(&self, record: &Record) -> bool {
        self.is_export && record.cells[0].starts_with(b"# {")
    }

    /// The row as a message.
    ///
    /// # Errors
    /// Why it is none.
    pub fn message(&self, record: &Record, defaults: Defaults<'_>) -> Result<String, String> {
        let (found, expected) = (record.cells.len(), self.columns.len());
        if found != expected {
            return Err(format!("it has {found} cells; the header has {expected}"));
        }
        let mut row = Row::default();
        for (column, cell) in self.columns.iter().zip(&record.cells) {
            let text = std::str::from_utf8(cell).map_err(|_| "it is not UTF-8".to_owned())?;
            self.add(column, text, &mut row)?;
        }
        let run =
            defaults.run.map(str::to_owned).or(row.run.take()).or_else(|| defaults.fallback_run.map(str::to_owned));
        let run = run.ok_or("it names no run; give --run")?;
        if let Some(time) = defaults.time {
            row.put("timestamp", text_token(&render::time(time)));
        }
        Ok(row.json(&run))
    }

    fn add(&self, column: &Column, text: &str, row: &mut Row) -> Result<(), String> {
        if text.trim().is_empty() {
            return Ok(());
        }
        match column {
            Column::Ignored => {}
            Column::Run => row.run = Some(text.to_owned()),
            Column::Field { name, is_text: true, .. } if self.is_export => {
                row.put(name, text_token(unquoted(text, self.raw)));
            }
            Column::Field { name, is_text: true, .. } => row.put(name, text_token(text)),
            Column::Field { name, .. } => row.put(name, token(text)),
            Column::Clash(name) => row.replace(name, token(text)),
            Column::Extra => row.add_extra(text)?,
            Column::Rest => row.add_rest(unquoted(text, self.raw))?,
        }
        Ok(())
    }
}

/// A column of any file.
fn column(name: &str, all: &BTreeSet<String>) -> Column {
    let lower = name.to_lowercase();
    // What W&B calls `_step` and `_timestamp`, and people call `Epoch`.
    let known = [name, lower.strip_prefix(WANDB_PREFIX).unwrap_or(&lower)];
    let known = known.into_iter().find(|known| field_use(known).is_some() && (*known == name || !all.contains(*known)));
    match known.and_then(|known| Some((known, field_use(known)?))) {
        // The index that pandas writes.
        _ if name.is_empty() => Column::Ignored,
        None => Column::Field { name: name.to_owned(), is_text: false, is_time: false },
        Some((_, FieldUse::Run)) => Column::Run,
        Some((known, found)) => {
            Column::Field { name: known.to_owned(), is_text: found == FieldUse::Text, is_time: found == FieldUse::Time }
        }
    }
}

/// A column of an export.
fn export_column(label: &str, raw: bool) -> Column {
    match label {
        "run_id" => Column::Run,
        "event_id" => Column::Ignored,
        "timestamp" => Column::Field { name: label.to_owned(), is_text: true, is_time: true },
        "extra" => Column::Extra,
        "rest_json" => Column::Rest,
        _ if is_metrics_column(label) => {
            let is_text = field_use(label) == Some(FieldUse::Text);
            Column::Field { name: label.to_owned(), is_text, is_time: false }
        }
        _ => match metric_name(unquoted_label(label, raw)) {
            name if is_metrics_column(name) => Column::Clash(name.to_owned()),
            name => Column::Field { name: name.to_owned(), is_text: false, is_time: false },
        },
    }
}

/// The name of the metric with this label: without the prefix, where the name or what it leads to is that of a column.
fn metric_name(label: &str) -> &str {
    let Some(name) = label.strip_prefix(CLASH_PREFIX) else { return label };
    let mut last = name;
    while let Some(rest) = last.strip_prefix(CLASH_PREFIX) {
        last = rest;
    }
    if OTHER_COLUMNS.contains(&last) || is_metrics_column(last) { name } else { label }
}

/// Without the `'` that an export puts in front of what a spreadsheet would run.
fn unquoted(text: &str, raw: bool) -> &str {
    text.strip_prefix('\'').filter(|rest| !raw && is_formula(rest)).unwrap_or(text)
}

/// The same in a header, where a name that begins with `'` and then a formula has one more, too.
fn unquoted_label(label: &str, raw: bool) -> &str {
    label.strip_prefix('\'').filter(|rest| !raw && is_formula(rest.trim_start_matches('\''))).unwrap_or(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(line: &str) -> Record {
        super::super::csv::CsvReader::new(line.as_bytes(), 0).next().unwrap().unwrap()
    }

    const NONE: Defaults<'_> = Defaults { run: None, fallback_run: Some("file"), time: None };

    fn message(header: &str, line: &str, defaults: Defaults<'_>) -> Result<String, String> {
        Columns::parse(&record(header), false)?.message(&record(line), defaults)
    }

    #[test]
    fn columns_are_what_they_are_called() {
        for (header, line, fields) in [
            ("epoch,loss,val_acc", "1,0.5,", "\"epoch\":1,\"loss\":0.5"),
            ("Epoch,LOSS", "1,nan", "\"epoch\":1,\"loss\":NaN"),
            ("epoch,Epoch", "1,2", "\"epoch\":1,\"Epoch\":2"),
            ("_step,_timestamp,_runtime", "3,1763633700.5,9", "\"step\":3,\"timestamp\":1763633700.5,\"_runtime\":9"),
            ("_step,step,loss", "3,4,1", "\"_step\":3,\"step\":4,\"loss\":1"),
            (",loss", "0,.5", "\"loss\":0.5"),
            (
                "loss,phase,note",
                "-inf,2,\"a \"\"b\"\"\"",
                "\"loss\":-Infinity,\"phase\":\"2\",\"note\":\"a \\\"b\\\"\"",
            ),
            ("loss,phase", "007,\"\"", "\"loss\":7.0"),
            ("\u{feff}loss,\"f1,macro\"", "1e-05,+2", "\"loss\":1e-05,\"f1,macro\":2.0"),
            ("loss,run", "1,", "\"loss\":1"),
        ] {
            let expected = format!("{{\"type\":\"metrics\",\"run_id\":\"file\",\"metrics\":{{{fields}}}}}");
            assert_eq!(message(header, line, NONE), Ok(expected), "{header}");
        }
        let named = message("run,loss", "7,1", NONE).unwrap();
        assert!(named.contains("\"run_id\":\"7\""), "{named}");
        let given = message("run,loss", "7,1", Defaults { run: Some("mine"), ..NONE }).unwrap();
        assert!(given.contains("\"run_id\":\"mine\""), "{given}");
        let timed = message("loss", "1", Defaults { time: Some(1_763_633_700_000_001), ..NONE }).unwrap();
        assert!(timed.contains("\"timestamp\":\"2025-11-20T10:15:00.000001Z\""), "{timed}");
    }

    #[test]
    fn an_export_is_unpacked() {
        const HEADER: &str = "run_id,timestamp,event_id,epoch,phase,grad,extra.epoch,extra,rest_json";
        let line = concat!(
            "r,2025-11-20T10:15:00.000001Z,7,0,\"'=a\",,0.33,",
            "\"{\"\"big\"\":1.2e19,\"\"n\"\":\"\"NaN\"\"}\",\"{\"\"big\"\":12345678901234567890,\"\"type\"\":\"\"x\"\"}\""
        );
        let expected = concat!(
            "{\"type\":\"metrics\",\"run_id\":\"r\",\"metrics\":{\"timestamp\":\"2025-11-20T10:15:00.000001Z\",\"phase\":\"=a\",",
            "\"epoch\":0.33,\"big\":12345678901234567890,\"n\":NaN},\"data\":{\"type\":\"x\"}}"
        );
        assert_eq!(message(HEADER, line, NONE).as_deref(), Ok(expected));
    }

    #[test]
    fn the_label_of_a_metric_leads_back_to_its_name() {
        let field = |name: &str| Column::Field { name: name.to_owned(), is_text: false, is_time: false };
        for (label, raw, expected) in [
            ("grad norm ", false, field("grad norm ")),
            ("", false, field("")),
            ("loss", false, field("loss")),
            ("extra.epoch", false, Column::Clash("epoch".into())),
            ("extra.extra.epoch", false, field("extra.epoch")),
            ("extra.event_id", false, field("event_id")),
            ("extra.grad", false, field("extra.grad")),
            ("'=1", false, field("=1")),
            ("''=1", false, field("'=1")),
            ("'a", false, field("'a")),
            ("'=1", true, field("'=1")),
        ] {
            assert_eq!(export_column(label, raw), expected, "{label}");
        }
    }

    #[test]
    fn a_header_or_a_row_that_cannot_be_used_is_refused() {
        for (header, why) in [
            ("run_id,timestamp,event_id,epoch,topology_json", "topology_json"),
            ("epoch;loss", "commas"),
            ("loss,epoch,loss", "`loss` is there twice"),
            ("run_id", "none is named"),
        ] {
            assert!(message(header, "1", NONE).unwrap_err().contains(why), "{header}");
        }
        assert_eq!(message("epoch,loss", "1", NONE).unwrap_err(), "it has 1 cells; the header has 2");
        assert!(message("loss", "1", Defaults { fallback_run: None, ..NONE }).unwrap_err().contains("--run"));
    }
}
