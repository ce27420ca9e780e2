//! Column-wise bulk reads: only the columns of the requested numbers are read and copied.

use std::{collections::BTreeMap, ops::ControlFlow};

use rusqlite::{Connection, Row as Stored, types::ValueRef};
use serde_json::{Map, Value};

use super::{encode, long, read};
use crate::{
    curve::{Field, Sample, Samples},
    event::EventKey,
    store::SamplesQuery,
};

/// Columns of every sample; those of the fields follow.
const COLUMNS: &str = "timestamp, event_id, epoch, step, hidden_units, seq, phase, non_finite";
const FIRST_FIELD: usize = 8;

/// The samples of a range.
pub(super) fn read(connection: &Connection, query: &SamplesQuery) -> rusqlite::Result<Samples> {
    let mut columns = COLUMNS.to_owned();
    let with_extra = query.fields.iter().any(|field| matches!(field, Field::Extra(_)));
    for field in &query.fields {
        // An extra metric also takes a place, so that columns and fields have the same positions.
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
    read::each_of(connection, "training_metrics_rows", &columns, &query.range, |row| {
        let extra = if with_extra { extra(connection, row, query)? } else { BTreeMap::new() };
        add(&mut samples, row, query, &extra)?;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(samples)
}

fn extra(connection: &Connection, row: &Stored<'_>, query: &SamplesQuery) -> rusqlite::Result<BTreeMap<String, f64>> {
    Ok(match read::text(row, FIRST_FIELD + query.fields.len())? {
        Some(long::MARKER) => {
            let key = EventKey { run_id: query.range.run_id, timestamp: row.get(0)?, event_id: row.get(1)? };
            encode::read_numbers(long::extra(connection, &key)?.as_deref())
        }
        in_row => encode::read_numbers(in_row),
    })
}

fn add(
    samples: &mut Samples,
    row: &Stored<'_>,
    query: &SamplesQuery,
    extra: &BTreeMap<String, f64>,
) -> rusqlite::Result<()> {
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
