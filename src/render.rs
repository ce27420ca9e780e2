//! JSON rendering of rows: column names of the store, times in RFC 3339, and cursors.
//!
//! JSON has no NaN and no infinity: both are written as `null`, and the row lists their columns in `non_finite`.

use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeSeq},
};
use uuid::Uuid;

use crate::{
    cooperative::YieldEvery,
    event::{
        ColumnValue, ControlRow, DatasetRow, EventKey, EventRow, GapRow, METRIC_COLUMNS, MetricsRow, RunRow,
        TopologyRow, status,
    },
    units::Micros,
    wire,
};

/// Derived status of a running run that has been silent for longer than `stale_after`.
pub const STALE: &str = "stale";

/// Silence after which a running run is shown as [`STALE`].
pub const STALE_AFTER: Micros = 5 * 60 * 1_000_000;

/// RFC 3339, UTC, with microseconds.
pub fn time(micros: Micros) -> String {
    let limit = if micros < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    format!("{:.6}", jiff::Timestamp::from_microsecond(micros).unwrap_or(limit))
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

/// The cursor that continues a list of runs after `run`.
pub fn run_cursor(run: &RunRow) -> Option<String> {
    run.cursor().map(run_cursor_at)
}

/// The cursor from its parts.
pub fn run_cursor_at((start, run_id): (Micros, Uuid)) -> String {
    format!("{start}.{}", run_id.as_simple())
}

/// The inverse of [`run_cursor`].
pub fn parse_run_cursor(text: &str) -> Option<(Micros, Uuid)> {
    let (start, run_id) = text.split_once('.')?;
    Some((start.parse().ok()?, Uuid::try_parse(run_id).ok()?))
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

/// A run with its [`shown_status`].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the arguments of `shown_status`")]
pub struct RunJson<'a> {
    pub run: &'a RunRow,
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

/// Serialises `"name": value` for fields of the same name.
macro_rules! plain {
    ($map:ident, $row:expr, $($column:ident),+) => { $( $map.serialize_entry(stringify!($column), &$row.$column)?; )+ };
}

/// Serialises times under their field names.
macro_rules! times {
    ($map:ident, $row:expr, $($column:ident),+) => {
        $( $map.serialize_entry(stringify!($column), &$row.$column.map(time))?; )+
    };
}

/// Serialises doubles: non-finite values as `null`, with their names collected.
macro_rules! doubles {
    ($map:ident, $lost:ident, $row:expr, $($column:ident),+) => {
        $(
            if $row.$column.is_some_and(|value| !value.is_finite()) {
                $lost.push(stringify!($column));
            }
            // serde_json writes non-finite values as null.
            $map.serialize_entry(stringify!($column), &$row.$column)?;
        )+
    };
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
            if value.is_non_finite() {
                lost.push(column.name);
            }
            map.serialize_entry(column.name, &value)?;
        }
        plain!(map, row, extra, rest_json);
        lost.extend(row.extra.iter().filter(|(_, value)| !value.is_finite()).map(|(name, _)| name.as_str()));
        map.serialize_entry("non_finite", &lost)?;
        map.end()
    }
}

/// Key of a metrics row; part of every answer with some of its columns.
pub const KEY_COLUMNS: [&str; 3] = ["run_id", "timestamp", "event_id"];

/// Serialises the key of a row and the given columns, and a number of `extra` like a column; returns the non-finite columns.
///
/// # Errors
/// An error of the serializer.
pub fn columns<'n, M: SerializeMap>(
    map: &mut M,
    row: &MetricsRow,
    names: impl Iterator<Item = &'n str>,
) -> Result<Vec<&'n str>, M::Error> {
    let mut lost = Vec::new();
    key(map, &row.key)?;
    let values = row.columns.values();
    for name in names {
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
            (None, name) => ColumnValue::Double(row.extra.get(name).copied()),
        };
        if value.is_non_finite() {
            lost.push(name);
        }
        map.serialize_entry(name, &value)?;
    }
    Ok(lost)
}

impl Serialize for Json<'_, TopologyRow> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let row = self.0;
        let mut map = serializer.serialize_map(None)?;
        key(&mut map, &row.key)?;
        plain!(
            map,
            row,
            epoch,
            input_size,
            output_size,
            hidden_units,
            total_parameters,
            topology_json,
            weights_summary
        );
        map.end()
    }
}

impl Serialize for Json<'_, EventRow> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let row = self.0;
        let mut map = serializer.serialize_map(None)?;
        key(&mut map, &row.key)?;
        map.serialize_entry("type", &row.r#type)?;
        plain!(map, row, payload_json, epoch);
        map.end()
    }
}

impl Serialize for Json<'_, DatasetRow> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let row = self.0;
        let mut map = serializer.serialize_map(None)?;
        plain!(map, row, dataset_id, name, description, num_samples, num_features, num_classes, class_distribution);
        times!(map, row, created_at);
        plain!(map, row, file_path, checksum);
        map.end()
    }
}

impl Serialize for Json<'_, GapRow> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let row = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("started_at", &time(row.started_at))?;
        map.serialize_entry("ended_at", &time(row.ended_at))?;
        plain!(map, row, gap_id, reason, source, channel, instance, run_id, lost);
        map.end()
    }
}

impl Serialize for Json<'_, ControlRow> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let row = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &time(row.timestamp))?;
        plain!(map, row, event_id, instance, command, command_id, target, source, outcome, payload_json);
        map.end()
    }
}

impl Serialize for RunJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (row, mut lost) = (self.run, Vec::<&str>::new());
        let mut map = serializer.serialize_map(None)?;
        plain!(map, row, run_id, run_name);
        times!(map, row, start_time, end_time);
        plain!(map, row, duration_seconds);
        map.serialize_entry("status", &shown_status(row, self.now, self.stale_after))?;
        plain!(map, row, dataset_name, dataset_size, config_json, final_epoch);
        doubles!(map, lost, row, final_train_loss, final_train_accuracy, final_val_loss, final_val_accuracy);
        doubles!(map, lost, row, best_val_accuracy);
        plain!(map, row, best_epoch, total_hidden_units, total_parameters, notes, tags, created_by);
        times!(map, row, last_event_time, restarted_at);
        map.serialize_entry("non_finite", &lost)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
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
        let run = RunRow { final_val_loss: Some(f64::NAN), best_val_accuracy: Some(0.5), ..RunRow::default() };
        let json = serde_json::to_value(RunJson { run: &run, now: 0, stale_after: 0 }).unwrap();
        assert_eq!(json["non_finite"], serde_json::json!(["final_val_loss"]));
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
        let run = RunRow { run_id: Uuid::from_u128(7), start_time: Some(-5), ..RunRow::default() };
        assert_eq!(parse_run_cursor(&run_cursor(&run).unwrap()), Some((-5, run.run_id)));
        let key = EventKey { run_id: run.run_id, timestamp: 1, event_id: 2 };
        assert_eq!(parse_event_cursor(&event_cursor(&key)), Some((1, 2)));
        assert_eq!((parse_event_cursor("x"), parse_run_cursor("1.2")), (None, None));
    }
}
