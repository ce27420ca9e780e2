//! Curves of an answer, a line each.

use serde_json::Value;

use super::{CliError, output, spark, table};

/// A line for each field that has values; whether there is any.
pub fn print_curves(curve: &Value) -> Result<bool, CliError> {
    let usual = [
        ("train_loss", "loss"),
        ("val_loss", "val loss"),
        ("train_accuracy", "accuracy"),
        ("val_accuracy", "val accuracy"),
    ];
    print_curves_of(curve, &usual)
}

/// The same for these fields, each with what it is called.
pub fn print_curves_of(curve: &Value, fields: &[(&str, &str)]) -> Result<bool, CliError> {
    let points = &curve["metrics"];
    let mut rows = Vec::new();
    for (field, name) in fields {
        let values = || spark::of_points(points, field);
        if values().flatten().count() > 1 {
            let (first, last) = (table::number(spark::first(points, field)), table::number(values().flatten().last()));
            rows.push(vec![table::text(Some(name)), first, comfy_table::Cell::new(spark::line(values())), last]);
        }
    }
    if rows.is_empty() {
        return Ok(false);
    }
    output::line("")?;
    table::table(&[], rows)?;
    Ok(true)
}
