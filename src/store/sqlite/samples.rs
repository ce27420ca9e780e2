//! Some numbers of many rows: only their columns are read, and nothing is copied but the numbers.

use std::ops::ControlFlow;

use rusqlite::{Connection, Row as Stored, types::ValueRef};
use serde_json::{Map, Value};

use super::{encode, read};
use crate::{
    curve::{Field, Sample, Samples},
    store::SamplesQuery,
};

/// The columns that every sample has; those of the fields follow.
const COLUMNS: &str = "timestamp, event_id, epoch, step, hidden_units, seq, phase, non_finite";
const FIRST_FIELD: usize = 8;

/// The samples of a range.
pub(super) fn read(connection: &Connection, query: &SamplesQuery) -> rusqlite::Result<Samples> {
    let mut columns = COLUMNS.to_owned();
    let with_extra = query.fields.iter().any(|field| matches!(field, Field::Extra(_)));
    for field in &query.fields {
        // An extra has its place, too, so that the numbers of columns are those of fields.
        let column = if matches!(field, Field::Column(_)) { field.name() } else { "NULL" };
        columns.push_str(", ");
        columns.push_str(column);
    }
    if with_extra {
        columns.push_str(", extra");
    }
    let mut samples = Samples::default();
    samples.rows.reserve(query.range.limit.min(1 << 16));
    samples.values.reserve(query.range.limit.min(1 << 16) * query.fields.len());
    read::each_of(connection, "training_metrics", &columns, &query.range, |row| {
        add(&mut samples, row, query, with_extra)?;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(samples)
}

fn add(samples: &mut Samples, row: &Stored<'_>, query: &SamplesQuery, with_extra: bool) -> rusqlite::Result<()> {
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
    let extra = match with_extra {
        true => encode::read_numbers(read::text(row, FIRST_FIELD + query.fields.len())?),
        false => Default::default(),
    };
    for (n, field) in query.fields.iter().enumerate() {
        let value = match field {
            Field::Extra(name) => extra.get(name).copied(),
            column => match row.get_ref(FIRST_FIELD + n)? {
                ValueRef::Real(value) => Some(value),
                ValueRef::Integer(value) => Some(value as f64),
                _ => encode::read_nan(None, column.name(), lost.as_ref()),
            },
        };
        samples.values.push(value);
    }
    Ok(())
}
