//! Rows as lines: CSV after RFC 4180 (an absent value is empty, an empty text is `""`), and JSON.

use std::{collections::BTreeMap, fmt, io};

use super::columns::{Columns, CsvStyle, is_formula};
use crate::{
    api::memory_budget::write_json,
    event::{ColumnValue, EventKey, Keyed, METRIC_COLUMNS, MetricsRow, StoredRow, StoredValue},
    render::{self, Json},
    wire::write_time,
};

/// A row that can be a line of a file.
pub trait ExportRow {
    /// The columns, in order, as the cells of the first line of a CSV file.
    fn header(style: &CsvStyle) -> Vec<String>;
    /// Appends a line of CSV.
    fn csv(&self, out: &mut impl fmt::Write, style: &CsvStyle);
    /// Appends a JSON object.
    fn json(&self, out: &mut impl io::Write);
}

/// A line of CSV being written; begins with the key.
struct Cells<'o, W> {
    out: &'o mut W,
    raw: bool,
}

/// Writes the first line.
pub fn write_header(out: &mut impl fmt::Write, cells: &[String]) {
    // Their formulas are quoted already.
    let mut line = Cells { out, raw: true };
    for (n, cell) in cells.iter().enumerate() {
        if n > 0 {
            line.put(",");
        }
        line.quoted("", cell);
    }
    line.end();
}

impl<'o, W: fmt::Write> Cells<'o, W> {
    fn begin(out: &'o mut W, key: &EventKey, style: &CsvStyle) -> Self {
        let mut cells = Self { out, raw: style.raw };
        cells.put(key.run_id.as_hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
        cells.put(",");
        write_time(cells.out, key.timestamp);
        let _ = write!(cells.out, ",{}", key.event_id);
        cells
    }

    fn put(&mut self, text: &str) {
        let _ = self.out.write_str(text);
    }

    fn integer(&mut self, value: Option<impl std::fmt::Display>) -> &mut Self {
        self.put(",");
        if let Some(value) = value {
            let _ = write!(self.out, "{value}");
        }
        self
    }

    fn double(&mut self, value: Option<f64>) -> &mut Self {
        self.put(",");
        let _ = match value {
            None => Ok(()),
            Some(f64::INFINITY) => self.out.write_str("Infinity"),
            Some(f64::NEG_INFINITY) => self.out.write_str("-Infinity"),
            // The shortest text that reads back as the same bits.
            Some(value) => write!(self.out, "{value:?}"),
        };
        self
    }

    fn column(&mut self, value: ColumnValue<'_>) -> &mut Self {
        match value {
            ColumnValue::Int(value) => self.integer(value),
            ColumnValue::BigInt(value) => self.integer(value),
            ColumnValue::Double(value) => self.double(value),
            ColumnValue::Text(value) => self.text(value),
        }
    }

    fn text(&mut self, value: Option<&str>) -> &mut Self {
        self.put(",");
        let Some(value) = value else { return self };
        self.quoted(if !self.raw && is_formula(value) { "'" } else { "" }, value);
        self
    }

    /// Text after this mark, between quotes where it needs them.
    fn quoted(&mut self, mark: &str, value: &str) {
        if !value.is_empty() && !value.contains(['"', ',', '\n', '\r']) {
            self.put(mark);
            self.put(value);
            return;
        }
        self.put("\"");
        self.put(mark);
        self.escaped(value);
        self.put("\"");
    }

    /// Text between quotes.
    fn escaped(&mut self, value: &str) {
        for (n, part) in value.split('"').enumerate() {
            if n > 0 {
                self.put("\"\"");
            }
            self.put(part);
        }
    }

    /// The numbers with these names, a cell each; both are in byte order. Returns the numbers with other names.
    fn metrics<'r>(&mut self, names: &[String], extra: &'r BTreeMap<String, f64>) -> Vec<(&'r String, &'r f64)> {
        let (mut numbers, mut other) = (extra.iter().peekable(), Vec::new());
        for name in names {
            while let Some(before) = numbers.next_if(|(found, _)| *found < name) {
                other.push(before);
            }
            self.double(numbers.next_if(|(found, _)| *found == name).map(|(_, value)| *value));
        }
        other.extend(numbers);
        other
    }

    /// A JSON object, written in place: it may be large.
    fn numbers<'r>(&mut self, numbers: impl IntoIterator<Item = (&'r String, &'r f64)>) -> &mut Self {
        let mut numbers = numbers.into_iter().enumerate().peekable();
        if numbers.peek().is_none() {
            return self.text(None);
        }
        self.put(",\"{");
        for (n, (name, value)) in numbers {
            if n > 0 {
                self.put(",");
            }
            self.escaped(&serde_json::to_string(name).unwrap_or_default());
            let _ = match *value {
                f64::INFINITY => self.out.write_str(":\"\"Infinity\"\""),
                f64::NEG_INFINITY => self.out.write_str(":\"\"-Infinity\"\""),
                value if value.is_nan() => self.out.write_str(":\"\"NaN\"\""),
                value => write!(self.out, ":{value:?}"),
            };
        }
        self.put("}\"");
        self
    }

    fn end(&mut self) {
        self.put("\r\n");
    }
}

fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}

impl ExportRow for MetricsRow {
    fn header(style: &CsvStyle) -> Vec<String> {
        let columns = METRIC_COLUMNS.iter().map(|column| column.name);
        let mut cells = names(render::KEY_COLUMNS.into_iter().chain(columns));
        match &style.columns {
            Columns::Fixed => cells.extend(names(["extra", "rest_json"])),
            Columns::Names(_) => {
                cells.extend(style.metric_cells());
                cells.extend(names(["rest_json", "extra"]));
            }
        }
        cells
    }

    fn csv(&self, out: &mut impl fmt::Write, style: &CsvStyle) {
        let mut cells = Cells::begin(out, &self.key, style);
        for value in self.columns.values() {
            cells.column(value);
        }
        match &style.columns {
            Columns::Fixed => cells.numbers(&self.extra).text(self.rest_json.as_deref()).end(),
            Columns::Names(names) => {
                let other = cells.metrics(names, &self.extra);
                cells.text(self.rest_json.as_deref()).numbers(other).end();
            }
        }
    }

    fn json(&self, out: &mut impl io::Write) {
        write_json(out, &Json(self));
    }
}

impl<T: StoredRow + Keyed> ExportRow for T {
    fn header(_: &CsvStyle) -> Vec<String> {
        names(render::KEY_COLUMNS.into_iter().chain(Self::names()))
    }

    fn csv(&self, out: &mut impl fmt::Write, style: &CsvStyle) {
        let mut cells = Cells::begin(out, self.key(), style);
        for value in self.values() {
            let StoredValue::Column(value) = value else { unreachable!("events have numbers and text alone") };
            cells.column(value);
        }
        cells.end();
    }

    fn json(&self, out: &mut impl io::Write) {
        write_json(out, &Json(self));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::event::{EventRow, MetricColumns};

    #[test]
    fn every_value_has_a_text_of_its_own() {
        let row = MetricsRow {
            key: EventKey { run_id: Uuid::nil(), timestamp: 1_763_633_700_123_456, event_id: 7 },
            columns: MetricColumns {
                epoch: Some(1),
                train_loss: Some(f64::NAN),
                train_accuracy: Some(f64::INFINITY),
                val_loss: Some(f64::NEG_INFINITY),
                val_accuracy: Some(0.1 + 0.2),
                learning_rate: Some(5e-324),
                hidden_units: Some(0),
                phase: Some("a \"b\", c\n".into()),
                seq: Some(i64::MAX),
                ..MetricColumns::default()
            },
            extra: [("g".to_owned(), 1e300), ("n".to_owned(), f64::NAN)].into(),
            rest_json: Some("".into()),
        };
        let line = |columns| {
            let (style, mut text) = (CsvStyle { raw: false, columns }, String::new());
            write_header(&mut text, &MetricsRow::header(&style));
            row.csv(&mut text, &style);
            let (header, line) = text.split_once("\r\n").unwrap();
            (header.to_owned(), line.to_owned())
        };
        let cells = [
            ("run_id", "00000000-0000-0000-0000-000000000000"),
            ("timestamp", "2025-11-20T10:15:00.123456Z"),
            ("event_id", "7"),
            ("epoch", "1"),
            ("train_loss", "NaN"),
            ("train_accuracy", "Infinity"),
            ("val_loss", "-Infinity"),
            ("val_accuracy", "0.30000000000000004"),
            ("learning_rate", "5e-324"),
            ("hidden_units", "0"),
            ("phase", "\"a \"\"b\"\", c\n\""),
            ("seq", "9223372036854775807"),
            ("extra", "\"{\"\"g\"\":1e300,\"\"n\"\":\"\"NaN\"\"}\""),
            ("rest_json", "\"\""),
        ];
        let (header, fixed) = line(Columns::Fixed);
        let cell = |name: &str| cells.iter().find(|(column, _)| *column == name).map_or("", |(_, text)| text);
        let expected: Vec<_> = header.split(',').map(cell).collect();
        assert_eq!(fixed, expected.join(",") + "\r\n");
        assert!(cells.iter().all(|(name, _)| header.split(',').any(|column| column == *name)), "{header}");
        // The same but for the end: numbers of named columns leave `extra`, which keeps the other numbers.
        let named = |names: &[&str]| line(Columns::Names(names.iter().map(|name| (*name).to_owned()).collect()));
        for (names, head, end) in [
            (&["a,\"b", "epoch", "g", "n", "z"][..], "\"a,\"\"b\",extra.epoch,g,n,z,", ",,1e300,NaN,,\"\","),
            (&["g"], "g,", "1e300,\"\",\"{\"\"n\"\":\"\"NaN\"\"}\""),
            (&["f", "h", "n"], "f,h,n,", ",,NaN,\"\",\"{\"\"g\"\":1e300}\""),
            (&[], "", "\"\",\"{\"\"g\"\":1e300,\"\"n\"\":\"\"NaN\"\"}\""),
        ] {
            let (of_columns, _) = header.split_once("extra,").unwrap();
            let values: usize = fixed.find(&*format!(",{}", cell("extra"))).unwrap() + 1;
            assert_eq!(
                named(names),
                (format!("{of_columns}{head}rest_json,extra"), format!("{}{end}\r\n", &fixed[..values]))
            );
        }
    }

    #[test]
    fn formulas_are_quoted_unless_raw() {
        let key = EventKey { run_id: Uuid::nil(), timestamp: 0, event_id: 1 };
        let line = |text: &str, raw: bool| {
            let row = EventRow { key, r#type: text.into(), payload_json: "{}".into(), epoch: Some(-1) };
            let mut line = String::new();
            row.csv(&mut line, &CsvStyle { raw, columns: Columns::Fixed });
            line.split_once(",1,").unwrap().1.to_owned()
        };
        for (text, quoted, raw) in [
            ("=1+1", "'=1+1", "=1+1"),
            ("+1", "'+1", "+1"),
            ("-1", "'-1", "-1"),
            ("@SUM(A1)", "'@SUM(A1)", "@SUM(A1)"),
            ("=A(\"x\",1)", "\"'=A(\"\"x\"\",1)\"", "\"=A(\"\"x\"\",1)\""),
            ("\t =1", "'\t =1", "\t =1"),
            ("\r=1", "\"'\r=1\"", "\"\r=1\""),
            ("＝1", "'＝1", "＝1"),
            ("'=1", "'=1", "'=1"),
            ("a=1", "a=1", "a=1"),
            ("", "\"\"", "\"\""),
        ] {
            // A number stays a number.
            assert_eq!(line(text, false), format!("{quoted},{{}},-1\r\n"), "{text:?}");
            assert_eq!(line(text, true), format!("{raw},{{}},-1\r\n"), "{text:?}");
        }
    }
}
