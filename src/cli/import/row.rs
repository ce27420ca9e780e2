//! A row of a CSV file as a message of metrics.

use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::METRIC_COLUMNS;

/// A message in the making.
#[derive(Default)]
pub struct Row {
    /// The run that it names.
    pub run: Option<String>,
    /// Names and JSON values.
    fields: Vec<(String, String)>,
    /// What no column holds.
    rest: Vec<(String, String)>,
}

impl Row {
    /// Adds a field; its value is JSON.
    pub fn put(&mut self, name: &str, value: String) {
        self.fields.push((name.to_owned(), value));
    }

    /// Puts a number in the place of the column that has its whole part, or none of it.
    pub fn replace(&mut self, name: &str, value: String) {
        self.fields.retain(|(taken, _)| taken != name);
        self.put(name, value);
    }

    /// Adds the numbers of a JSON object.
    ///
    /// # Errors
    /// When it is none.
    pub fn add_extra(&mut self, json: &str) -> Result<(), String> {
        for (name, value) in object(json).map_err(|error| format!("its `extra` is no JSON object: {error}"))? {
            let text = value.get();
            let value = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).to_owned();
            if is_metrics_column(&name) {
                self.replace(&name, value);
            } else {
                self.put(&name, value);
            }
        }
        Ok(())
    }

    /// Adds what no column holds, of a JSON object.
    ///
    /// # Errors
    /// When it is none.
    pub fn add_rest(&mut self, json: &str) -> Result<(), String> {
        for (name, value) in object(json).map_err(|error| format!("its `rest_json` is no JSON object: {error}"))? {
            let value = value.get().to_owned();
            // An integer that `extra` holds as a double is exact here.
            let is_number = value.parse::<f64>().is_ok();
            match self.fields.iter_mut().find(|(taken, _)| is_number && *taken == name) {
                Some((_, number)) => *number = value,
                None => self.rest.push((name, value)),
            }
        }
        Ok(())
    }

    /// The message. The section that is looked at first has the fields, so that nothing in `data` takes their place.
    pub fn json(&self, run: &str) -> String {
        let map = |fields: &[(String, String)]| {
            let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{}:{value}", text_token(name))).collect();
            format!("{{{}}}", fields.join(","))
        };
        let head = format!("{{\"type\":\"metrics\",\"run_id\":{},\"metrics\":{}", text_token(run), map(&self.fields));
        if self.rest.is_empty() { head + "}" } else { format!("{head},\"data\":{}}}", map(&self.rest)) }
    }
}

/// Whether this is the name of a column of metrics.
pub fn is_metrics_column(name: &str) -> bool {
    METRIC_COLUMNS.iter().any(|column| column.name == name)
}

/// The entries of a JSON object, in order, their values as they are written.
fn object(json: &str) -> Result<Vec<(String, Box<RawValue>)>, serde_json::Error> {
    struct Entries;

    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<(String, Box<RawValue>)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }

    let mut deserializer = serde_json::Deserializer::from_str(json);
    let entries = deserializer.deserialize_map(Entries)?;
    deserializer.end().map(|()| entries)
}

/// A text as JSON.
pub fn text_token(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A cell as JSON: a number if it is one, also `nan`, `inf`, `.5` or `+1`; else text.
pub fn token(text: &str) -> String {
    let text = text.trim();
    if serde_json::from_str::<&RawValue>(text).is_ok() && text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return text.to_owned();
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_nan() => "NaN".into(),
        Ok(f64::INFINITY) => "Infinity".into(),
        Ok(f64::NEG_INFINITY) => "-Infinity".into(),
        Ok(number) => format!("{number:?}"),
        Err(_) => text_token(text),
    }
}
