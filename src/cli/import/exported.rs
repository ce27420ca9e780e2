//! Lines of an NDJSON export: a row of metrics becomes a message that gives the same row.

use std::collections::BTreeMap;

use serde_json::{from_str, value::RawValue};

use super::row::{Row, is_metrics_column};
use crate::{event::METRIC_COLUMNS, render};

/// What makes a row one of an export of metrics, beside its key.
const OF_METRICS: [&str; 3] = ["extra", "rest_json", "non_finite"];
/// Columns of exports of other tables.
const OF_OTHERS: [&str; 2] = ["payload_json", "topology_json"];
/// Values in `infinite`; a number that only `non_finite` names is NaN.
const INFINITIES: [&str; 2] = ["Infinity", "-Infinity"];

/// A line of an export.
#[derive(Debug, PartialEq)]
pub enum Exported {
    /// A row: its message, or why it is none.
    Row(Result<String, String>),
    /// The last line, which is no row.
    Trailer,
}

type Fields = BTreeMap<String, Box<RawValue>>;

/// Reads a line; `None`: it is not of an export. `run` takes the place of the run of the row.
pub fn read(line: &[u8], run: Option<&str>) -> Option<Exported> {
    let text = std::str::from_utf8(line).ok()?;
    if text.starts_with("{\"_trailer\":") {
        return Some(Exported::Trailer);
    }
    if !text.contains("\"event_id\"") {
        return None;
    }
    let fields: Fields = from_str(text).ok()?;
    let has = |names: &[&str]| names.iter().all(|name| fields.contains_key(*name));
    if !has(&render::KEY_COLUMNS) {
        return None;
    }
    if let Some(name) = OF_OTHERS.into_iter().find(|name| has(&[*name])) {
        let why = format!("a row of an export with `{name}` holds no metrics; import an export of training_metrics");
        return Some(Exported::Row(Err(why)));
    }
    has(&OF_METRICS).then(|| Exported::Row(message(&fields, run)))
}

fn unusable(name: &str) -> impl FnOnce(serde_json::Error) -> String {
    move |error| format!("its `{name}` cannot be used: {error}")
}

fn message(fields: &Fields, run: Option<&str>) -> Result<String, String> {
    let lost: Vec<String> = from_str(fields["non_finite"].get()).map_err(unusable("non_finite"))?;
    let infinite = fields.get("infinite").map_or("{}", |infinite| infinite.get());
    let infinite: BTreeMap<String, String> = from_str(infinite).map_err(unusable("infinite"))?;
    let value = |name: &str, value: &RawValue| match value.get() {
        "null" if !lost.iter().any(|lost| lost == name) => None,
        "null" => {
            let infinity = infinite.get(name).filter(|word| INFINITIES.contains(&word.as_str()));
            Some(infinity.map_or("NaN", String::as_str).to_owned())
        }
        token => Some(token.to_owned()),
    };
    let mut row = Row::default();
    row.put("timestamp", fields["timestamp"].get().to_owned());
    for name in METRIC_COLUMNS.iter().map(|column| column.name) {
        if let Some(token) = fields.get(name).and_then(|found| value(name, found)) {
            row.put(name, token);
        }
    }
    let extra: Fields = from_str(fields["extra"].get()).map_err(unusable("extra"))?;
    for (name, token) in extra.iter().filter_map(|(name, found)| Some((name, value(name, found)?))) {
        if is_metrics_column(name) { row.replace(name, token) } else { row.put(name, token) }
    }
    let rest: Option<String> = from_str(fields["rest_json"].get()).map_err(unusable("rest_json"))?;
    if let Some(rest) = rest {
        row.add_rest(&rest)?;
    }
    let own: String = from_str(fields["run_id"].get()).map_err(unusable("run_id"))?;
    Ok(row.json(run.unwrap_or(&own)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = concat!(
        r#"{"run_id":"r","timestamp":"2025-11-20T10:15:00.000001Z","event_id":7,"epoch":0,"step":null,"train_loss":null,"#,
        r#""phase":"=a","extra":{"big":1.2e19,"epoch":0.33,"n":null,"up":null},"#,
        r#""rest_json":"{\"big\":12345678901234567890,\"type\":\"x\"}","non_finite":["train_loss","n","up"],"infinite":{"up":"Infinity"}}"#
    );

    #[test]
    fn a_row_becomes_the_message_that_gives_it() {
        let expected = concat!(
            "{\"type\":\"metrics\",\"run_id\":\"r\",\"metrics\":{\"timestamp\":\"2025-11-20T10:15:00.000001Z\",\"train_loss\":NaN,",
            "\"phase\":\"=a\",\"big\":12345678901234567890,\"epoch\":0.33,\"n\":NaN,\"up\":Infinity},\"data\":{\"type\":\"x\"}}"
        );
        assert_eq!(read(ROW.as_bytes(), None), Some(Exported::Row(Ok(expected.into()))));
        let Some(Exported::Row(Ok(other))) = read(ROW.as_bytes(), Some("mine")) else { panic!("it is a row") };
        assert!(other.contains("\"run_id\":\"mine\""), "{other}");
    }

    #[test]
    fn only_rows_of_an_export_are_taken_for_such() {
        assert_eq!(read(br#"{"_trailer":{"rows":1}}"#, None), Some(Exported::Trailer));
        for message in
            [r#"{"run_id":"r","loss":1}"#, r#"{"run_id":"r","timestamp":1,"event_id":7,"loss":1}"#, "nonsense"]
        {
            assert_eq!(read(message.as_bytes(), None), None, "{message}");
        }
        for (row, why) in [
            (r#"{"run_id":"r","timestamp":"t","event_id":7,"type":"x","payload_json":"{}"}"#, "holds no metrics"),
            (ROW.replace("[\"train_loss\",\"n\",\"up\"]", "7").as_str(), "`non_finite`"),
            (ROW.replace("\"{\\\"big", "\"[{\\\"big").as_str(), "`rest_json`"),
        ] {
            let Some(Exported::Row(Err(said))) = read(row.as_bytes(), None) else { panic!("{row}") };
            assert!(said.contains(why), "{said}");
        }
    }
}
