//! Samples of whole rows, for stores (and fields) that have no shorter way.

use crate::{
    curve::{Field, Sample, Samples},
    event::MetricsRow,
};

/// The numbers of these rows.
pub fn of_rows(rows: &[MetricsRow], fields: &[Field]) -> Samples {
    let mut samples = Samples::default();
    rows.iter().for_each(|row| add_row(&mut samples, row, fields));
    samples
}

/// Adds the numbers of a row.
pub fn add_row(samples: &mut Samples, row: &MetricsRow, fields: &[Field]) {
    let phase = row.phase.as_deref().map(|phase| samples.phase(phase));
    samples.rows.push(Sample {
        timestamp: row.key.timestamp,
        event_id: row.key.event_id,
        epoch: row.epoch,
        step: row.step,
        hidden_units: row.hidden_units,
        seq: row.seq,
        phase,
    });
    samples.values.extend(fields.iter().map(|field| value(row, field)));
}

fn value(row: &MetricsRow, field: &Field) -> Option<f64> {
    match field {
        Field::Extra(name) => row.extra.get(name).copied(),
        column => match column.name() {
            "train_loss" => row.train_loss,
            "train_accuracy" => row.train_accuracy,
            "val_loss" => row.val_loss,
            "val_accuracy" => row.val_accuracy,
            "learning_rate" => row.learning_rate,
            "hidden_units" => row.hidden_units.map(f64::from),
            _ => None,
        },
    }
}
