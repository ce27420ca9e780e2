//! Rows as lines: CSV after RFC 4180 (an absent value is empty, an empty text is `""`), and JSON.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{
    event::{EventKey, EventRow, MetricsRow, TopologyRow},
    render::Json,
    wire::write_time,
};

/// A row that can be a line of a file.
pub trait Line {
    /// The columns, in order, as the first line of a CSV file.
    const HEADER: &str;
    /// Appends a line of CSV.
    fn csv(&self, out: &mut String);
    /// Appends a JSON object.
    fn json(&self, out: &mut Vec<u8>);
}

/// A line of CSV in the making; begins with the key.
struct Cells<'o>(&'o mut String);

impl<'o> Cells<'o> {
    fn begin(out: &'o mut String, key: &EventKey) -> Self {
        out.push_str(key.run_id.as_hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
        out.push(',');
        write_time(out, key.timestamp);
        let _ = write!(out, ",{}", key.event_id);
        Self(out)
    }

    fn integer(&mut self, value: Option<impl std::fmt::Display>) -> &mut Self {
        self.0.push(',');
        if let Some(value) = value {
            let _ = write!(self.0, "{value}");
        }
        self
    }

    fn double(&mut self, value: Option<f64>) -> &mut Self {
        self.0.push(',');
        let _ = match value {
            None => Ok(()),
            Some(f64::INFINITY) => self.0.write_str("Infinity"),
            Some(f64::NEG_INFINITY) => self.0.write_str("-Infinity"),
            // The shortest text that reads back as the same bits.
            Some(value) => write!(self.0, "{value:?}"),
        };
        self
    }

    fn text(&mut self, value: Option<&str>) -> &mut Self {
        self.0.push(',');
        let Some(value) = value else { return self };
        if !value.is_empty() && !value.contains(['"', ',', '\n', '\r']) {
            self.0.push_str(value);
            return self;
        }
        self.0.push('"');
        self.inside(value);
        self.0.push('"');
        self
    }

    /// Text between quotes.
    fn inside(&mut self, value: &str) {
        for (n, part) in value.split('"').enumerate() {
            if n > 0 {
                self.0.push_str("\"\"");
            }
            self.0.push_str(part);
        }
    }

    /// A JSON object, written where it stays: it may be large.
    fn numbers(&mut self, numbers: &BTreeMap<String, f64>) -> &mut Self {
        if numbers.is_empty() {
            return self.text(None);
        }
        self.0.push_str(",\"{");
        for (n, (name, value)) in numbers.iter().enumerate() {
            if n > 0 {
                self.0.push(',');
            }
            self.inside(&serde_json::to_string(name).unwrap_or_default());
            let _ = match *value {
                f64::INFINITY => self.0.write_str(":\"\"Infinity\"\""),
                f64::NEG_INFINITY => self.0.write_str(":\"\"-Infinity\"\""),
                value if value.is_nan() => self.0.write_str(":\"\"NaN\"\""),
                value => write!(self.0, ":{value:?}"),
            };
        }
        self.0.push_str("}\"");
        self
    }

    fn end(&mut self) {
        self.0.push_str("\r\n");
    }
}

impl Line for MetricsRow {
    const HEADER: &str = "run_id,timestamp,event_id,epoch,step,train_loss,train_accuracy,val_loss,val_accuracy,\
                          learning_rate,hidden_units,phase,seq,extra,rest_json\r\n";

    fn csv(&self, out: &mut String) {
        let mut cells = Cells::begin(out, &self.key);
        cells.integer(self.epoch).integer(self.step).double(self.train_loss).double(self.train_accuracy);
        cells.double(self.val_loss).double(self.val_accuracy).double(self.learning_rate).integer(self.hidden_units);
        cells.text(self.phase.as_deref()).integer(self.seq);
        cells.numbers(&self.extra).text(self.rest_json.as_deref()).end();
    }

    fn json(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, &Json(self)).expect("rows always serialise");
    }
}

impl Line for TopologyRow {
    const HEADER: &str = "run_id,timestamp,event_id,epoch,input_size,output_size,hidden_units,total_parameters,\
                          topology_json,weights_summary\r\n";

    fn csv(&self, out: &mut String) {
        let mut cells = Cells::begin(out, &self.key);
        cells.integer(self.epoch).integer(self.input_size).integer(self.output_size).integer(self.hidden_units);
        cells.integer(self.total_parameters).text(Some(&self.topology_json)).text(self.weights_summary.as_deref());
        cells.end();
    }

    fn json(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, &Json(self)).expect("rows always serialise");
    }
}

impl Line for EventRow {
    const HEADER: &str = "run_id,timestamp,event_id,type,payload_json,epoch\r\n";

    fn csv(&self, out: &mut String) {
        let mut cells = Cells::begin(out, &self.key);
        cells.text(Some(&self.r#type)).text(Some(&self.payload_json)).integer(self.epoch).end();
    }

    fn json(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, &Json(self)).expect("rows always serialise");
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn every_value_has_a_text_of_its_own() {
        let row = MetricsRow {
            key: EventKey { run_id: Uuid::nil(), timestamp: 1_763_633_700_123_456, event_id: 7 },
            epoch: Some(1),
            step: None,
            train_loss: Some(f64::NAN),
            train_accuracy: Some(f64::INFINITY),
            val_loss: Some(f64::NEG_INFINITY),
            val_accuracy: Some(0.1 + 0.2),
            learning_rate: Some(5e-324),
            hidden_units: Some(0),
            phase: Some("a \"b\", c\n".into()),
            seq: Some(i64::MAX),
            extra: [("g".to_owned(), 1e300), ("n".to_owned(), f64::NAN)].into(),
            rest_json: Some(String::new()),
        };
        let mut line = String::new();
        row.csv(&mut line);
        assert_eq!(
            line,
            "00000000-0000-0000-0000-000000000000,2025-11-20T10:15:00.123456Z,7,1,,NaN,Infinity,-Infinity,\
             0.30000000000000004,5e-324,0,\"a \"\"b\"\", c\n\",9223372036854775807,\
             \"{\"\"g\"\":1e300,\"\"n\"\":\"\"NaN\"\"}\",\"\"\r\n"
        );
        let columns = MetricsRow::HEADER.trim().split(',').count();
        assert_eq!(columns, 15);
    }
}
