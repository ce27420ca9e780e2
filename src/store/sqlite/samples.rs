//! Column-wise bulk reads: only the columns of the requested numbers are read and copied.

use std::{fmt, ops::ControlFlow};

use rusqlite::{Connection, Row as Stored, types::ValueRef};
use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use super::{encode, long, read};
use crate::{
    curve::{Field, Sample, Samples},
    event::{EventKey, METRIC_COLUMNS},
    store::SamplesQuery,
};

/// Columns of every sample; those of the fields follow.
const COLUMNS: &str = "timestamp, event_id, epoch, step, hidden_units, seq, phase, non_finite";
const FIRST_FIELD: usize = 8;

/// The samples of a range.
pub(super) fn read(connection: &Connection, query: &SamplesQuery) -> rusqlite::Result<Samples> {
    let mut columns = COLUMNS.to_owned();
    let wanted = Wanted::of(&query.fields);
    for field in &query.fields {
        // An extra metric also takes a place, so that columns and fields have the same positions.
        let column = if let Field::Column(at) = field { METRIC_COLUMNS[*at].name } else { "NULL" };
        columns.push_str(", ");
        columns.push_str(column);
    }
    if !wanted.is_empty() {
        columns.push_str(", extra");
    }
    let mut samples = Samples::default();
    samples.rows.reserve(query.range.limit.min(1 << 16));
    samples.values.reserve(query.range.limit.min(1 << 16) * query.fields.len());
    read::each_of(connection, "training_metrics_rows", &columns, &query.range, |row| {
        add(&mut samples, row, query)?;
        if !wanted.is_empty() {
            let first = samples.values.len() - query.fields.len();
            extra(connection, row, query, |json| wanted.read(json, &mut samples.values[first..]))?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(samples)
}

/// Passes the text of `extra` to the callback.
fn extra(
    connection: &Connection,
    row: &Stored<'_>,
    query: &SamplesQuery,
    take: impl FnOnce(Option<&str>),
) -> rusqlite::Result<()> {
    match read::text(row, FIRST_FIELD + query.fields.len())? {
        Some(long::MARKER) => {
            let key = EventKey { run_id: query.range.run_id, timestamp: row.get(0)?, event_id: row.get(1)? };
            take(long::extra(connection, &key)?.as_deref());
        }
        in_row => take(in_row),
    }
    Ok(())
}

fn add(samples: &mut Samples, row: &Stored<'_>, query: &SamplesQuery) -> rusqlite::Result<()> {
    let phase = read::text(row, 6)?.map(|phase| samples.phase(phase));
    samples.rows.push(Sample {
        timestamp: row.get(0)?,
        event_id: row.get(1)?,
        epoch: row.get(2)?,
        step: row.get(3)?,
        hidden_units: row.get(4)?,
        seq: row.get(5)?,
        phase,
    });
    let lost: Option<Map<String, Value>> = read::text(row, 7)?.and_then(|text| serde_json::from_str(text).ok());
    for (n, field) in query.fields.iter().enumerate() {
        let value = match field {
            Field::Extra(_) => None,
            Field::Column(at) => match row.get_ref(FIRST_FIELD + n)? {
                ValueRef::Real(value) => Some(value),
                ValueRef::Integer(value) => Some(value as f64),
                _ => encode::read_nan(None, METRIC_COLUMNS[*at].name, lost.as_ref()),
            },
        };
        samples.values.push(value);
    }
    Ok(())
}

/// The names in `extra` that are read, in order, each with its position among the fields.
struct Wanted<'q>(Vec<(&'q str, usize)>);

impl<'q> Wanted<'q> {
    fn of(fields: &'q [Field]) -> Self {
        let extra = |(n, field): (usize, &'q Field)| match field {
            Field::Extra(name) => Some((name.as_str(), n)),
            Field::Column(_) => None,
        };
        let mut names: Vec<_> = fields.iter().enumerate().filter_map(extra).collect();
        names.sort_unstable();
        Self(names)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The positions of this name.
    fn positions(&self, name: &str) -> &[(&'q str, usize)] {
        let from = self.0.partition_point(|(wanted, _)| *wanted < name);
        &self.0[from..from + self.0[from..].partition_point(|(wanted, _)| *wanted == name)]
    }

    /// Puts the numbers of a JSON object into their places; the text of other numbers is only skipped.
    fn read(&self, json: Option<&str>, values: &mut [Option<f64>]) {
        let Some(json) = json else { return };
        let picked = serde_json::Deserializer::from_str(json).deserialize_map(Pick { wanted: self, values });
        // As for whole rows: what is no object of numbers holds none.
        if picked.is_err() {
            self.0.iter().for_each(|(_, n)| values[*n] = None);
        }
    }
}

/// Reads a JSON object for [`Wanted`].
struct Pick<'w, 'q, 'v> {
    wanted: &'w Wanted<'q>,
    values: &'v mut [Option<f64>],
}

impl<'de> Visitor<'de> for Pick<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of numbers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(positions) = map.next_key_seed(Positions(self.wanted))? {
            if positions.is_empty() {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let number = encode::read_number(map.next_value::<&RawValue>()?);
            positions.iter().for_each(|(_, n)| self.values[*n] = number);
        }
        Ok(())
    }
}

/// Looks a name up without copying it.
struct Positions<'w, 'q>(&'w Wanted<'q>);

impl<'de, 'w, 'q> DeserializeSeed<'de> for Positions<'w, 'q> {
    type Value = &'w [(&'q str, usize)];

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_str(self)
    }
}

impl<'w, 'q> Visitor<'_> for Positions<'w, 'q> {
    type Value = &'w [(&'q str, usize)];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.positions(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wanted_numbers_are_read_and_as_in_whole_rows() {
        let names = ["b", "a\"ü", "b", "none", "text"].map(|name| Field::Extra(name.to_owned()));
        let wanted = Wanted::of(&names);
        let object = r#"{"a":1,"a\"\u00fc":0.30000000000000004,"b":"NaN","c":[1,{"b":2}],"text":"x"}"#;
        for (json, expected) in [
            (Some(object), [Some(f64::NAN), Some(0.1 + 0.2), Some(f64::NAN), None, None]),
            (Some(r#"{"b":"#), [None; 5]),
            (Some("[1]"), [None; 5]),
            (None, [None; 5]),
        ] {
            let mut values = [None; 5];
            wanted.read(json, &mut values);
            assert_eq!(format!("{values:?}"), format!("{expected:?}"), "{json:?}");
        }
    }
}
