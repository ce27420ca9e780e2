//! Samples of whole rows, for stores (and fields) that have no shorter way.

use crate::{
    curve::{Field, Samples},
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
    samples.add(&row.key, &row.columns, &row.extra, fields);
}
