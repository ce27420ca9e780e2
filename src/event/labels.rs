//! The names of extra metrics beside the names of columns: in CSV headers, curves and parameters.
//!
//! A metric in `extra` may have the name of a column: a trainer that logs within an epoch has an `epoch` of 0.33. Its label is then
//! `extra.epoch`. Labels are unique, because a metric that is itself named `extra.epoch` gets the prefix, too.

use std::borrow::Cow;

use super::METRIC_COLUMNS;

/// Comes before a name that is also the name of a column.
const PREFIX: &str = "extra.";
/// Columns of `training_metrics` beside those of [`METRIC_COLUMNS`].
const OTHER_COLUMNS: [&str; 6] = ["run_id", "timestamp", "event_id", "extra", "rest_json", "non_finite"];

/// The label of the metric of this name in `extra`.
pub fn extra_label(name: &str) -> Cow<'_, str> {
    if is_taken(name) { Cow::Owned([PREFIX, name].concat()) } else { Cow::Borrowed(name) }
}

/// The name in `extra` of the metric with this label.
pub fn extra_name(label: &str) -> &str {
    label.strip_prefix(PREFIX).filter(|name| is_taken(name)).unwrap_or(label)
}

/// Whether this is the name of a column, or would be the label of one.
fn is_taken(name: &str) -> bool {
    let mut name = name;
    while let Some(rest) = name.strip_prefix(PREFIX) {
        name = rest;
    }
    OTHER_COLUMNS.contains(&name) || METRIC_COLUMNS.iter().any(|column| column.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_lead_back_to_their_names() {
        for (name, label) in [
            ("grad_norm", "grad_norm"),
            ("", ""),
            ("epoch", "extra.epoch"),
            ("extra.epoch", "extra.extra.epoch"),
            ("rest_json", "extra.rest_json"),
            ("extra", "extra.extra"),
            ("extra.grad", "extra.grad"),
            ("extra.", "extra."),
            ("Epoch", "Epoch"),
        ] {
            assert_eq!((&*extra_label(name), extra_name(label)), (label, name));
        }
    }
}
