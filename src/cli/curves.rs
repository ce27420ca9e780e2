//! Curves of an answer, a line each.

use serde_json::Value;

use super::{
    CliError, output, sparkline,
    table::{self, Cell, Column},
};

static COLUMNS: [Column; 4] =
    [Column::key("METRIC"), Column::ranked("FIRST", 2), Column::ranked("CURVE", 1), Column::key("LAST")];

/// Prints a line for each of the usual fields that has a curve; returns whether any has.
pub fn print_curves(curve: &Value) -> Result<bool, CliError> {
    let usual = [
        ("train_loss", "loss"),
        ("val_loss", "val loss"),
        ("train_accuracy", "accuracy"),
        ("val_accuracy", "val accuracy"),
    ];
    print_curves_of(curve, &usual)
}

/// The same for these fields, each with its label.
pub fn print_curves_of(curve: &Value, fields: &[(&str, &str)]) -> Result<bool, CliError> {
    let points = &curve["metrics"];
    let mut rows = Vec::new();
    for (field, name) in fields {
        let values = || sparkline::of_points(points, field);
        if values().flatten().count() > 1 {
            let first = table::number(sparkline::first(points, field));
            // The points of a curve do not say whether it is NaN or infinite.
            let last = match values().flatten().last() {
                Some(last) if !last.is_finite() => table::count(Some("not finite")),
                last => table::number(last),
            };
            rows.push(vec![table::text(Some(name)), first, Cell::Curve(values().collect()), last]);
        }
    }
    if rows.is_empty() {
        return Ok(false);
    }
    output::rows(&COLUMNS, &rows)?;
    Ok(true)
}
