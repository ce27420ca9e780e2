//! JSON rendering of rows: column names of the store, times in RFC 3339, and cursors.
//!
//! JSON has no NaN and no infinity: both are written as `null`, and the row lists their columns in `non_finite`. A row with infinities
//! also has `infinite`, which says of each whether it is `Infinity` or `-Infinity`; all others are NaN.

use std::collections::BTreeMap;

use crate::{
    cooperative::YieldEvery,
    event::{
        ColumnValue, EditedRun, EventKey, METRIC_COLUMNS, MetricsRow, RunRow, StoredColumn, StoredRow, StoredValue,
        extra_name, status,
    },
    units::{self, Micros},
    wire,
};
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeSeq},
};

/// Derived status of a running run that has been silent for longer than `stale_after`.
pub const STALE: &str = "stale";

/// Silence after which a running run is shown as [`STALE`], by default.
pub const STALE_AFTER: Micros = 5 * 60 * 1_000_000;

/// RFC 3339, UTC, with microseconds.
pub fn time(micros: Micros) -> String {
    units::rfc3339(micros)
}

/// Parses a time parameter: every form allowed in a message, and a date. Without a zone it is UTC, like all displayed times.
///
/// # Errors
/// Names the expected format.
pub fn parse_time(text: &str) -> Result<Micros, String> {
    wire::parse_time(text, &jiff::tz::TimeZone::UTC).ok_or_else(|| {
        format!("`{text}` is not a time; write it like 2026-11-20T10:15:00Z, or as a number of seconds or milliseconds")
    })
}

/// The status to show: the stored one, or [`STALE`].
pub fn shown_status(run: &RunRow, now: Micros, stale_after: Micros) -> Option<&str> {
    let silent_since = run.last_event_time.or(run.start_time);
    let silent = silent_since.is_some_and(|since| now.saturating_sub(since) > stale_after);
    match run.status.as_deref() {
        Some(status::RUNNING) if silent => Some(STALE),
        stored => stored,
    }
}

/// The cursor that continues a range of events after this key.
pub fn event_cursor(key: &EventKey) -> String {
    format!("{}.{}", key.timestamp, key.event_id)
}

/// The inverse of [`event_cursor`].
pub fn parse_event_cursor(text: &str) -> Option<(Micros, i64)> {
    let (timestamp, event_id) = text.split_once('.')?;
    Some((timestamp.parse().ok()?, event_id.parse().ok()?))
}

/// A row that serialises as a JSON object.
#[derive(Clone, Copy, Debug)]
pub struct Json<'a, T>(pub &'a T);

/// Rows that serialise as an array of objects.
#[derive(Clone, Copy, Debug)]
pub struct JsonRows<'a, T>(pub &'a [T]);

/// A run with its [`shown_status`]. `run_name` is the name that its producer published, `display_name` the one that people gave it.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the arguments of `shown_status`")]
pub struct RunJson<'a> {
    pub run: &'a EditedRun,
    pub now: Micros,
    pub stale_after: Micros,
}

impl<'a, T> Serialize for JsonRows<'a, T>
where
    Json<'a, T>: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.0.len()))?;
        let mut yielder = YieldEvery::default();
        for row in self.0 {
            rows.serialize_element(&Json(row))?;
            yielder.tick();
        }
        rows.end()
    }
}

/// Serialises a value: non-finite numbers as `null`, and they are collected with their names.
fn entry<M: SerializeMap>(
    map: &mut M,
    lost: &mut Vec<(&'static str, f64)>,
    column: &StoredColumn,
    value: StoredValue<'_>,
) -> Result<(), M::Error> {
    match value {
        StoredValue::Column(value) => {
            lost.extend(value.non_finite().map(|value| (column.name, value)));
            map.serialize_entry(column.name, &value)
        }
        StoredValue::Id(id) => map.serialize_entry(column.name, &id),
        StoredValue::Time(at) => map.serialize_entry(column.name, &at.map(time)),
        StoredValue::Flag(flag) => map.serialize_entry(column.name, &flag),
        StoredValue::Texts(texts) => map.serialize_entry(column.name, texts),
        StoredValue::Counts(counts) => map.serialize_entry(column.name, counts),
    }
}

fn key<M: SerializeMap>(map: &mut M, key: &EventKey) -> Result<(), M::Error> {
    map.serialize_entry("run_id", &key.run_id)?;
    map.serialize_entry("timestamp", &time(key.timestamp))?;
    map.serialize_entry("event_id", &key.event_id)
}

impl Serialize for Json<'_, MetricsRow> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (row, mut lost) = (self.0, Vec::new());
        let mut map = serializer.serialize_map(None)?;
        key(&mut map, &row.key)?;
        for (column, value) in METRIC_COLUMNS.iter().zip(row.columns.values()) {
            lost.extend(value.non_finite().map(|value| (column.name, value)));
            map.serialize_entry(column.name, &value)?;
        }
        map.serialize_entry("extra", &row.extra)?;
        map.serialize_entry("rest_json", &row.rest_json)?;
        lost.extend(
            row.extra.iter().filter(|(_, value)| !value.is_finite()).map(|(name, value)| (name.as_str(), *value)),
        );
        non_finite(&mut map, &lost)?;
        map.end()
    }
}

/// Serialises which of the numbers of a row are `null` because they are not finite.
fn non_finite<M: SerializeMap>(map: &mut M, lost: &[(&str, f64)]) -> Result<(), M::Error> {
    map.serialize_entry("non_finite", &lost.iter().map(|(name, _)| name).collect::<Vec<_>>())?;
    let infinite = lost.iter().filter(|(_, value)| value.is_infinite());
    let infinite: BTreeMap<_, _> = infinite.map(|(name, value)| (name, units::non_finite_name(*value))).collect();
    if infinite.is_empty() { Ok(()) } else { map.serialize_entry("infinite", &infinite) }
}

/// Key of a metrics row; part of every answer with some of its columns.
pub const KEY_COLUMNS: [&str; 3] = ["run_id", "timestamp", "event_id"];

/// Serialises the key of a row and the columns with these labels, and a number of `extra` like a column.
///
/// # Errors
/// An error of the serializer.
pub fn columns<'n, M: SerializeMap>(
    map: &mut M,
    row: &MetricsRow,
    labels: impl Iterator<Item = &'n str>,
) -> Result<(), M::Error> {
    let mut lost = Vec::new();
    key(map, &row.key)?;
    let values = row.columns.values();
    for name in labels {
        let value = match (METRIC_COLUMNS.iter().position(|column| column.name == name), name) {
            (Some(at), _) => values[at],
            (None, "extra") => {
                map.serialize_entry(name, &row.extra)?;
                continue;
            }
            (None, "rest_json") => {
                map.serialize_entry(name, &row.rest_json)?;
                continue;
            }
            (None, name) => ColumnValue::Double(row.extra.get(extra_name(name)).copied()),
        };
        lost.extend(value.non_finite().map(|value| (name, value)));
        map.serialize_entry(name, &value)?;
    }
    non_finite(map, &lost)
}

impl<T: StoredRow> Serialize for Json<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(of_event) = self.0.event_key() {
            key(&mut map, of_event)?;
        }
        for (column, value) in T::COLUMNS.iter().zip(self.0.values()) {
            entry(&mut map, &mut Vec::new(), column, value)?;
        }
        map.end()
    }
}

impl Serialize for RunJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut lost = Vec::new();
        let mut map = serializer.serialize_map(None)?;
        for (column, value) in RunRow::COLUMNS.iter().zip(self.run.row.values()) {
            if column.name == "status" {
                map.serialize_entry("status", &shown_status(&self.run.row, self.now, self.stale_after))?;
            } else {
                entry(&mut map, &mut lost, column, value)?;
            }
        }
        map.serialize_entry("display_name", &self.run.display_name)?;
        map.serialize_entry("archived", &self.run.archived)?;
        map.serialize_entry("edited_at", &self.run.edited_at.map(time))?;
        map.serialize_entry("edited_by", &self.run.edited_by)?;
        non_finite(&mut map, &lost)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn times_have_six_digits_and_round_trip() {
        let at = 1_763_633_700_120_000;
        assert_eq!(time(at), "2025-11-20T10:15:00.120000Z");
        for text in [
            "2025-11-20T10:15:00.12Z",
            "2025-11-20T11:15:00.12+01:00",
            "2025-11-20T10:15:00.12",
            "1763633700.12",
            "1763633700120",
            "1763633700120000",
            "1763633700120000000",
        ] {
            assert_eq!(parse_time(text), Ok(at), "{text}");
        }
        assert_eq!(parse_time("2025-11-20"), Ok(at - at.rem_euclid(86_400_000_000)));
        for text in ["yesterday", "", "NaN", "inf", "1e300", "2025-13-01"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn non_finite_values_are_null_and_listed() {
        let json = |final_train_loss| {
            let (nan, best) = (Some(f64::NAN), Some(0.5));
            let row = RunRow { final_train_loss, final_val_loss: nan, best_val_accuracy: best, ..RunRow::default() };
            let run = EditedRun::new(row, None);
            serde_json::to_value(RunJson { run: &run, now: 0, stale_after: 0 }).unwrap()
        };
        let infinite = json(Some(f64::NEG_INFINITY));
        assert_eq!(infinite["non_finite"], serde_json::json!(["final_train_loss", "final_val_loss"]));
        assert_eq!(infinite["infinite"], serde_json::json!({"final_train_loss": "-Infinity"}));
        let json = json(None);
        assert_eq!((&json["non_finite"], json.get("infinite")), (&serde_json::json!(["final_val_loss"]), None));
        assert_eq!((json["final_val_loss"].is_null(), json["best_val_accuracy"].as_f64()), (true, Some(0.5)));
    }

    #[test]
    fn only_a_silent_running_run_is_stale() {
        let run =
            |status: &str| RunRow { status: Some(status.into()), last_event_time: Some(100), ..RunRow::default() };
        for (status, now, shown) in [("running", 110, "running"), ("running", 111, "stale"), ("failed", 999, "failed")]
        {
            assert_eq!(shown_status(&run(status), now, 10), Some(shown));
        }
    }

    #[test]
    fn cursors_come_back() {
        let key = EventKey { run_id: Uuid::from_u128(7), timestamp: 1, event_id: 2 };
        assert_eq!((parse_event_cursor(&event_cursor(&key)), parse_event_cursor("x")), (Some((1, 2)), None));
    }
}
