//! Samples computed from whole rows, for stores (and fields) without a column-wise read.

use crate::{
    curve::{Field, Samples},
    event::MetricsRow,
};

/// Samples of these rows.
pub fn of_rows(rows: &[MetricsRow], fields: &[Field]) -> Samples {
    let mut samples = Samples::default();
    rows.iter().for_each(|row| add_row(&mut samples, row, fields));
    samples
}

/// Appends the numbers of one row.
pub fn add_row(samples: &mut Samples, row: &MetricsRow, fields: &[Field]) {
    samples.add(&row.key, &row.columns, &row.extra, fields);
}
