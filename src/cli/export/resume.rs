//! Finds where an earlier export ended.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    path::Path,
};

use serde_json::Value;
use uuid::Uuid;

use super::head::{Head, read_head};
use crate::{files, render};

/// An earlier export.
#[derive(Debug, PartialEq, Eq)]
pub struct PartialExport {
    /// The cursor after its last row.
    pub cursor: String,
    /// Its number of rows.
    pub rows: u64,
    /// The metric columns, if the file has no head.
    pub head: Option<String>,
}

/// The export that an earlier file must match.
pub struct ExportRequest<'a> {
    /// `csv` or `ndjson`.
    pub format: &'a str,
    /// The table.
    pub table: &'a str,
    /// The runs.
    pub ids: &'a [String],
    /// CSV: `names` or `fixed`, if the command says so.
    pub columns: Option<&'a str>,
    /// CSV: the metric columns of a file without a head, which continues another one; absent: the fixed columns.
    pub head: Option<String>,
}

/// Reads the part, or makes the finished file a part again. The last row, which may be torn, is cut off.
///
/// # Errors
/// When a file cannot be read, renamed or cut; `InvalidData`, before any change, when it holds a different export.
pub fn find_partial(file: &Path, part: &Path, request: &ExportRequest<'_>) -> io::Result<Option<PartialExport>> {
    let there = if part.exists() { part } else { file };
    if !there.exists() {
        return Ok(None);
    }
    let mut reader = BufReader::with_capacity(1 << 20, files::open_own(there)?);
    let mut rows = Rows { head: request.head.clone(), ..Rows::default() };
    let mut record = Vec::new();
    loop {
        record.clear();
        read_record(&mut reader, &mut record, request.format)?;
        if record.is_empty() {
            break;
        }
        rows.add(&record, request)?;
    }
    if request.format == "csv" && rows.count > 0 {
        let found = if rows.head.is_some() { "names" } else { "fixed" };
        if request.columns.is_some_and(|columns| columns != found) {
            return Err(different(format!("it was written with --columns {found}")));
        }
    }
    if there == file {
        fs::rename(file, part)?;
    }
    let (Some((begins, _)), Some(cursor)) = (rows.last, rows.before) else { return Ok(None) };
    reader.into_inner().set_len(begins)?;
    let cursor = [Some(cursor), rows.head].into_iter().flatten().collect::<Vec<_>>().join(".");
    Ok(Some(PartialExport { cursor, rows: rows.count - 1, head: request.head.clone() }))
}

/// The rows of a file so far.
#[derive(Default)]
struct Rows {
    /// Bytes read.
    at: u64,
    count: u64,
    /// The offset and the cursor of the last row.
    last: Option<(u64, String)>,
    /// The cursor of the row before.
    before: Option<String>,
    /// The metric columns; absent: the fixed columns.
    head: Option<String>,
}

impl Rows {
    fn add(&mut self, record: &[u8], request: &ExportRequest<'_>) -> io::Result<()> {
        match cursor(record, request.format) {
            Some((run, cursor)) => {
                if !request.ids.contains(&run) {
                    return Err(different(format!("it holds rows of run {run}")));
                }
                self.count += 1;
                self.before = self.last.take().map(|(_, cursor)| cursor);
                self.last = Some((self.at, cursor));
            }
            // An export from a cursor has no head.
            None if self.at == 0 && request.format == "csv" => match read_head(record, request.table) {
                Head::Fixed | Head::Torn => self.head = None,
                Head::Named(id) => self.head = Some(id.to_string()),
                Head::Foreign => return Err(different("it does not begin as this export does".into())),
            },
            None if self.at == 0 && record.ends_with(b"\n") => {
                return Err(different("it does not begin as this export does".into()));
            }
            // The beginning of a row.
            None => {}
        }
        self.at += record.len() as u64;
        Ok(())
    }
}

fn different(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Appends the next record: a line, or in CSV as many as a quoted text has.
fn read_record(reader: &mut impl BufRead, record: &mut Vec<u8>, format: &str) -> io::Result<()> {
    let (mut from, mut is_quoted) = (0, false);
    while reader.read_until(b'\n', record)? > 0 {
        let quotes = record[from..].iter().filter(|byte| **byte == b'"').count();
        is_quoted ^= format == "csv" && quotes % 2 == 1;
        if !is_quoted {
            break;
        }
        from = record.len();
    }
    Ok(())
}

/// The run and the cursor of the row that this line begins.
fn cursor(line: &[u8], format: &str) -> Option<(String, String)> {
    let (run_id, time, event_id) = if format == "csv" {
        let mut cells = line.splitn(4, |byte| *byte == b',').map(|cell| std::str::from_utf8(cell).ok());
        (cells.next()??.to_owned(), cells.next()??.to_owned(), cells.next()??.parse::<i64>().ok()?)
    } else {
        let row: Value = serde_json::from_slice(line).ok()?;
        (row["run_id"].as_str()?.to_owned(), row["timestamp"].as_str()?.to_owned(), row["event_id"].as_i64()?)
    };
    let run_id = Uuid::try_parse(&run_id).ok()?;
    let cursor = format!("{}.{}.{event_id}", run_id.as_simple(), render::parse_time(&time).ok()?);
    Some((run_id.to_string(), cursor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BOM, HeadId, fixed_head};

    const RUN: &str = "00000000-0000-0000-0000-000000000007";

    fn wanted(file: &Path, part: &Path, ids: &[&str], columns: Option<&str>) -> Result<Option<PartialExport>, String> {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let request = ExportRequest { format: "csv", table: "training_metrics", ids: &ids, columns, head: None };
        find_partial(file, part, &request).map_err(|error| error.to_string())
    }

    fn row(n: u32) -> String {
        format!("{RUN},2025-11-20T10:15:0{n}.000001Z,{n},\"a\n{RUN},2025-11-20T10:15:09.000001Z,9,\"\"b\",1\r\n")
    }

    #[test]
    fn a_torn_row_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let (file, part) = (folder.path().join("a.csv"), folder.path().join("a.csv.part"));
        let fixed = fixed_head("training_metrics");
        let named = fixed.replace("extra,rest_json", "\"a\n\"\"b\",grad,rest_json,extra");
        assert_eq!(wanted(&file, &part, &[RUN], None), Ok(None));
        for (head, id) in [(fixed, None), (named, Some(HeadId::of(&["a\n\"b", "grad"], 9)))] {
            let id = id.map(|id| format!(".{id}")).unwrap_or_default();
            let whole = format!("{head}{}{}", row(1), row(2));
            for torn in ["", &row(3)[..70], &row(3)[..110]] {
                fs::write(&part, format!("{whole}{torn}")).unwrap();
                // A different export is left as it is.
                assert!(wanted(&file, &part, &["7"], None).is_err());
                let other = if id.is_empty() { "names" } else { "fixed" };
                assert!(wanted(&file, &part, &[RUN], Some(other)).unwrap_err().contains("--columns"));
                assert_eq!(fs::read_to_string(&part).unwrap(), format!("{whole}{torn}"));
                let begun = wanted(&file, &part, &[RUN], None).unwrap().unwrap();
                let expected = if torn.is_empty() { 1 } else { 2 };
                assert_eq!(begun.rows, expected);
                let after = format!("00000000000000000000000000000007.176363370{expected}000001.{expected}{id}");
                assert_eq!(begun.cursor, after);
                let kept = if torn.is_empty() { whole.replace(&row(2), "") } else { whole.clone() };
                assert_eq!(fs::read_to_string(&part).unwrap(), kept);
            }
            fs::remove_file(&part).unwrap();
            // A byte-order mark makes no difference.
            fs::write(&file, format!("{BOM}{whole}")).unwrap();
            assert_eq!(wanted(&file, &part, &[RUN], None).unwrap().unwrap().rows, 1);
            assert_eq!(fs::read_to_string(&part).unwrap(), format!("{BOM}{}", whole.replace(&row(2), "")));
            fs::remove_file(&part).unwrap();
            // Nothing but a torn head: anew.
            for torn in [&BOM.as_bytes()[..2], BOM.as_bytes(), format!("{BOM}run_").as_bytes(), &head.as_bytes()[..9]] {
                fs::write(&file, torn).unwrap();
                assert_eq!(wanted(&file, &part, &[RUN], None), Ok(None));
                fs::remove_file(&part).unwrap();
            }
        }
    }

    #[test]
    fn another_file_is_refused_and_one_without_a_head_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (file, part) = (folder.path().join("a.csv"), folder.path().join("a.csv.part"));
        for foreign in ["mine\n", "mine", "run_id,timestamp,event_id,z\r\n"] {
            fs::write(&file, foreign).unwrap();
            let refused = wanted(&file, &part, &[RUN], None);
            assert_eq!(refused, Err("it does not begin as this export does".into()));
            assert!(!part.exists() && fs::read_to_string(&file).unwrap() == foreign);
        }
        let ids = [RUN.to_owned()];
        for head in [None, Some("0123456789abcdefabc".to_owned())] {
            fs::write(&file, format!("{}{}", row(1), row(2))).unwrap();
            let columns = None;
            let request =
                ExportRequest { format: "csv", table: "training_metrics", ids: &ids, columns, head: head.clone() };
            let begun = find_partial(&file, &part, &request).unwrap().unwrap();
            assert_eq!(begun.rows, 1);
            assert!(begun.cursor.ends_with(&[".1", &head.map(|id| format!(".{id}")).unwrap_or_default()].concat()));
            fs::remove_file(&part).unwrap();
        }
    }
}
