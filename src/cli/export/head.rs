//! The first record of an exported CSV file, which tells its columns.

use crate::api::{BOM, HeadId, fixed_head, metric_columns};

/// What the first record of a file is.
#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    /// The fixed columns of the table.
    Fixed,
    /// A column for each of these metrics.
    Named(HeadId),
    /// The beginning of either.
    Torn,
    /// Of no export of this table.
    Foreign,
}

/// Reads the first record of a file of this table.
pub fn read_head(record: &[u8], table: &str) -> Head {
    let record = record.strip_prefix(BOM.as_bytes()).unwrap_or(record);
    let fixed = fixed_head(table);
    if record == fixed.as_bytes() {
        return Head::Fixed;
    }
    // Only the metrics, which come next, differ between the heads of a table.
    let (shared, _) = fixed.split_once("extra,").unwrap_or((&fixed, ""));
    if fixed.as_bytes().starts_with(record) || BOM.as_bytes().starts_with(record) {
        return Head::Torn;
    }
    let Some(cells) = read_record(record) else {
        return if record.starts_with(shared.as_bytes()) && table_has_metrics(table) {
            Head::Torn
        } else {
            Head::Foreign
        };
    };
    match metric_columns(&cells) {
        Some(id) if table_has_metrics(table) => Head::Named(id),
        _ => Head::Foreign,
    }
}

fn table_has_metrics(table: &str) -> bool {
    table == "training_metrics"
}

/// The cells of a record; `None` unless it has an end.
fn read_record(record: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(record).ok()?.strip_suffix("\r\n")?;
    let (mut cells, mut rest) = (Vec::new(), text);
    loop {
        let (cell, after) = match rest.strip_prefix('"') {
            Some(quoted) => read_quoted(quoted)?,
            None => {
                let (cell, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                (cell.to_owned(), after)
            }
        };
        cells.push(cell);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return after.is_empty().then_some(cells),
        }
    }
}

/// A cell after its opening quote, and what follows it.
fn read_quoted(mut text: &str) -> Option<(String, &str)> {
    let mut cell = String::new();
    loop {
        let (part, after) = text.split_once('"')?;
        cell.push_str(part);
        match after.strip_prefix('"') {
            Some(next) => {
                cell.push('"');
                text = next;
            }
            None => return Some((cell, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_told_from_its_beginning_and_from_other_files() {
        let fixed = fixed_head("training_metrics");
        let shared = fixed.split_once("extra,").unwrap().0;
        let named = format!("{shared}\"a,\"\"b\"\"\nc\",,\"\",grad,rest_json,extra\r\n");
        let id = HeadId::of(&["a,\"b\"\nc", "", "", "grad"], 4_096);
        for (record, head) in [
            (fixed.clone(), Head::Fixed),
            (format!("{BOM}{fixed}"), Head::Fixed),
            (named.clone(), Head::Named(id.clone())),
            (format!("{BOM}{named}"), Head::Named(id)),
            (format!("{shared}rest_json,extra\r\n"), Head::Named(HeadId::of::<&str>(&[], 0))),
            (fixed[..9].to_owned(), Head::Torn),
            (named[..named.len() - 1].to_owned(), Head::Torn),
            (named[..named.len() - 30].to_owned(), Head::Torn),
            (BOM.to_owned(), Head::Torn),
            (String::new(), Head::Torn),
            ("mine\r\n".to_owned(), Head::Foreign),
            ("mine".to_owned(), Head::Foreign),
            (fixed_head("training_events"), Head::Foreign),
            (format!("{shared}grad,rest_json\r\n"), Head::Foreign),
        ] {
            assert_eq!(read_head(record.as_bytes(), "training_metrics"), head, "{record:?}");
        }
        assert_eq!(read_head(&BOM.as_bytes()[..2], "training_metrics"), Head::Torn);
        assert_eq!(read_head(named.as_bytes(), "training_events"), Head::Foreign);
    }
}
