//! Rows as lines: CSV after RFC 4180 (an absent value is empty, an empty text is `""`), and JSON.

use std::{collections::BTreeMap, fmt, io};

use crate::{
    api::memory_budget::write_json,
    event::{ColumnValue, EventKey, EventRow, METRIC_COLUMNS, MetricsRow, TopologyRow},
    render::{self, Json},
    wire::write_time,
};

/// A row that can be a line of a file.
pub trait ExportRow {
    /// The columns, in order, as the first line of a CSV file.
    fn header() -> String;
    /// Appends a line of CSV; unless `raw`, a text that a spreadsheet would run as a formula is quoted.
    fn csv(&self, out: &mut impl fmt::Write, raw: bool);
    /// Appends a JSON object.
    fn json(&self, out: &mut impl io::Write);
}

/// Whether a spreadsheet would read this text as a formula. Leading white space does not prevent that, and some spreadsheets accept
/// full-width characters.
fn is_formula(text: &str) -> bool {
    let first = text.trim_start_matches(|c: char| c.is_whitespace() || c.is_control()).chars().next();
    first.is_some_and(|c| "=+-@＝＋－＠".contains(c))
}

/// A line of CSV being written; begins with the key.
struct Cells<'o, W> {
    out: &'o mut W,
    raw: bool,
}

impl<'o, W: fmt::Write> Cells<'o, W> {
    fn begin(out: &'o mut W, key: &EventKey, raw: bool) -> Self {
        let mut cells = Self { out, raw };
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

    fn text(&mut self, value: Option<&str>) -> &mut Self {
        self.put(",");
        let Some(value) = value else { return self };
        let quote = if !self.raw && is_formula(value) { "'" } else { "" };
        if !value.is_empty() && !value.contains(['"', ',', '\n', '\r']) {
            self.put(quote);
            self.put(value);
            return self;
        }
        self.put("\"");
        self.put(quote);
        self.escaped(value);
        self.put("\"");
        self
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

    /// A JSON object, written in place: it may be large.
    fn numbers(&mut self, numbers: &BTreeMap<String, f64>) -> &mut Self {
        if numbers.is_empty() {
            return self.text(None);
        }
        self.put(",\"{");
        for (n, (name, value)) in numbers.iter().enumerate() {
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

impl ExportRow for MetricsRow {
    fn header() -> String {
        let columns = METRIC_COLUMNS.iter().map(|column| column.name);
        let names: Vec<_> = render::KEY_COLUMNS.into_iter().chain(columns).chain(["extra", "rest_json"]).collect();
        names.join(",") + "\r\n"
    }

    fn csv(&self, out: &mut impl fmt::Write, raw: bool) {
        let mut cells = Cells::begin(out, &self.key, raw);
        for value in self.columns.values() {
            match value {
                ColumnValue::Int(value) => cells.integer(value),
                ColumnValue::BigInt(value) => cells.integer(value),
                ColumnValue::Double(value) => cells.double(value),
                ColumnValue::Text(value) => cells.text(value),
            };
        }
        cells.numbers(&self.extra).text(self.rest_json.as_deref()).end();
    }

    fn json(&self, out: &mut impl io::Write) {
        write_json(out, &Json(self));
    }
}

impl ExportRow for TopologyRow {
    fn header() -> String {
        "run_id,timestamp,event_id,epoch,input_size,output_size,hidden_units,total_parameters,\
                          topology_json,weights_summary\r\n"
            .into()
    }

    fn csv(&self, out: &mut impl fmt::Write, raw: bool) {
        let mut cells = Cells::begin(out, &self.key, raw);
        cells.integer(self.epoch).integer(self.input_size).integer(self.output_size).integer(self.hidden_units);
        cells.integer(self.total_parameters).text(Some(&self.topology_json)).text(self.weights_summary.as_deref());
        cells.end();
    }

    fn json(&self, out: &mut impl io::Write) {
        write_json(out, &Json(self));
    }
}

impl ExportRow for EventRow {
    fn header() -> String {
        "run_id,timestamp,event_id,type,payload_json,epoch\r\n".into()
    }

    fn csv(&self, out: &mut impl fmt::Write, raw: bool) {
        let mut cells = Cells::begin(out, &self.key, raw);
        cells.text(Some(&self.r#type)).text(Some(&self.payload_json)).integer(self.epoch).end();
    }

    fn json(&self, out: &mut impl io::Write) {
        write_json(out, &Json(self));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::event::MetricColumns;

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
        let mut line = String::new();
        row.csv(&mut line, false);
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
        let header = MetricsRow::header();
        let cell = |name: &str| cells.iter().find(|(column, _)| *column == name).map_or("", |(_, text)| text);
        let expected: Vec<_> = header.trim().split(',').map(cell).collect();
        assert_eq!(line, expected.join(",") + "\r\n");
        assert!(cells.iter().all(|(name, _)| header.trim().split(',').any(|column| column == *name)), "{header}");
    }

    #[test]
    fn formulas_are_quoted_unless_raw() {
        let key = EventKey { run_id: Uuid::nil(), timestamp: 0, event_id: 1 };
        let line = |text: &str, raw: bool| {
            let row = EventRow { key, r#type: text.into(), payload_json: "{}".into(), epoch: Some(-1) };
            let mut line = String::new();
            row.csv(&mut line, raw);
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
