//! A curve in one line of text.

use serde_json::Value;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One character a value, from the smallest to the greatest; `×` is not finite, a blank is absent.
pub fn line(values: impl Iterator<Item = Option<f64>>) -> String {
    let values: Vec<_> = values.collect();
    let finite = || values.iter().flatten().copied().filter(|value| value.is_finite());
    let (min, max) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let bar = |value: &Option<f64>| match value {
        None => ' ',
        Some(value) if !value.is_finite() => '×',
        Some(value) if max > min => BARS[(((value - min) / (max - min)) * 7.0).round() as usize % 8],
        Some(_) => BARS[3],
    };
    values.iter().map(bar).collect()
}

/// As many values as there are columns, if there are more; each is the newest of those that it stands for.
pub fn narrowed(values: &[Option<f64>], columns: usize) -> Vec<Option<f64>> {
    let parts = values.len().min(columns);
    let part = |n| &values[n * values.len() / parts..(n + 1) * values.len() / parts];
    (0..parts).map(|n| part(n).iter().flatten().next_back().copied()).collect()
}

/// The field of each point of an answer, oldest first.
pub fn of_points<'a>(points: &'a Value, field: &'a str) -> impl Iterator<Item = Option<f64>> + 'a {
    let points = points.as_array().map(Vec::as_slice).unwrap_or_default();
    points.iter().map(move |point| match point[field].as_f64() {
        Some(value) => Some(value),
        None if listed(point, field) => Some(f64::NAN),
        None => None,
    })
}

/// The value of the first row; a point for several rows shows the value of the last of them.
pub fn first(points: &Value, field: &str) -> Option<f64> {
    let points = points.as_array().map(Vec::as_slice).unwrap_or_default();
    points.iter().find_map(|point| point["spread"][field]["first"].as_f64().or_else(|| point[field].as_f64()))
}

/// Whether a row says that its number of this name is not finite.
pub fn listed(row: &Value, field: &str) -> bool {
    row["non_finite"].as_array().is_some_and(|names| names.iter().any(|name| name == field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_of_a_curve_is_that_of_its_first_row() {
        let points = serde_json::json!([
            {"loss": null}, {"loss": 0.5, "spread": {"loss": {"first": 0.9, "last": 0.5}}}, {"loss": 0.4},
        ]);
        assert_eq!((first(&points, "loss"), first(&points, "none")), (Some(0.9), None));
        assert_eq!(first(&serde_json::json!([{"loss": 0.7, "spread": {}}]), "loss"), Some(0.7));
    }

    #[test]
    fn a_curve_is_narrowed_to_its_columns() {
        let values = [Some(1.0), None, Some(3.0), Some(4.0), Some(5.0)];
        for (columns, narrow) in
            [(9, &values[..]), (5, &values), (2, &[Some(1.0), Some(5.0)]), (1, &[Some(5.0)]), (0, &[])]
        {
            assert_eq!(narrowed(&values, columns), narrow);
        }
    }

    #[test]
    fn a_curve_is_drawn_from_its_least_to_its_greatest() {
        for (values, expected) in [
            (&[Some(0.0), Some(0.5), Some(1.0)][..], "▁▅█"),
            (&[Some(1.0), None, Some(f64::NAN), Some(0.0)], "█ ×▁"),
            (&[Some(3.0), Some(3.0)], "▄▄"),
            (&[], ""),
        ] {
            assert_eq!(line(values.iter().copied()), expected);
        }
    }
}
