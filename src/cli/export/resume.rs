//! Finds where an earlier export ended.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    path::Path,
};

use serde_json::Value;
use uuid::Uuid;

use crate::{api::BOM, files, render};

/// An earlier export.
#[derive(Debug, PartialEq, Eq)]
pub struct PartialExport {
    /// The cursor after its last row.
    pub cursor: String,
    /// Its number of rows.
    pub rows: u64,
}

/// The export that an earlier file must match.
pub struct ExportRequest<'a> {
    /// `csv` or `ndjson`.
    pub format: &'a str,
    /// The runs.
    pub ids: &'a [String],
    /// The columns of the table, as the first line of a CSV file.
    pub head: &'a str,
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
    let format = request.format;
    let other = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let mut reader = BufReader::with_capacity(1 << 20, files::open_own(there)?);
    let (mut at, mut line, mut rows) = (0_u64, Vec::new(), 0_u64);
    // The last two rows: the offset of the last, and the cursors of both.
    let (mut last, mut before): (Option<(u64, String)>, Option<String>) = (None, None);
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)? as u64;
        if read == 0 {
            break;
        }
        match cursor(&line, format) {
            Some((run, cursor)) => {
                if !request.ids.contains(&run) {
                    return other(format!("it holds rows of run {run}"));
                }
                rows += 1;
                before = last.take().map(|(_, cursor)| cursor);
                last = Some((at, cursor));
            }
            // The head, or the beginning of it or of the first row. An export from a cursor has no head.
            None if at == 0 => {
                let torn = format != "csv" && !line.ends_with(b"\n");
                // It may begin with the byte-order mark, or a part of it.
                let line = line.strip_prefix(BOM.as_bytes()).unwrap_or(&line);
                let is_head = request.head.as_bytes().starts_with(line) || BOM.as_bytes().starts_with(line);
                if !torn && !is_head {
                    return other("it does not begin as this export does".into());
                }
            }
            // A line within a text of the previous row.
            None => {}
        }
        at += read;
    }
    if there == file {
        fs::rename(file, part)?;
    }
    let (Some((begins, _)), Some(cursor)) = (last, before) else { return Ok(None) };
    reader.into_inner().set_len(begins)?;
    Ok(Some(PartialExport { cursor, rows: rows - 1 }))
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

    #[test]
    fn a_torn_row_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let (file, part) = (folder.path().join("a.csv"), folder.path().join("a.csv.part"));
        let run = "00000000-0000-0000-0000-000000000007".to_owned();
        let wanted = |head, ids: &[String], file, part| {
            find_partial(file, part, &ExportRequest { format: "csv", ids, head }).map_err(|e| e.to_string())
        };
        let head = "run_id,timestamp,event_id,x,y\r\n";
        let ours = std::slice::from_ref(&run);
        assert_eq!(wanted(head, ours, &file, &part), Ok(None));
        let row =
            |n: u32| format!("00000000-0000-0000-0000-000000000007,2025-11-20T10:15:0{n}.000001Z,{n},\"a\nb\",1\r\n");
        let whole = format!("run_id,timestamp,event_id,x,y\r\n{}{}", row(1), row(2));
        for torn in ["", "00000000-0000-0000-0000-000000000007,2025-11-20T10:15:03.000001Z,3,\"a\nb"] {
            fs::write(&part, format!("{whole}{torn}")).unwrap();
            // A different export is left as it is.
            for (head, ids) in [("run_id,timestamp,event_id,z\r\n", ours), (head, &["7".to_owned()][..])] {
                assert!(wanted(head, ids, &file, &part).is_err());
                assert_eq!(fs::read_to_string(&part).unwrap(), format!("{whole}{torn}"));
            }
            let begun = wanted(head, ours, &file, &part).unwrap().unwrap();
            let expected = if torn.is_empty() { 1 } else { 2 };
            assert_eq!(begun.rows, expected);
            assert!(
                begun.cursor.starts_with("00000000000000000000000000000007.17636337")
                    && begun.cursor.ends_with(&format!("1.{expected}"))
            );
            let kept = whole.replace(&row(2), if torn.is_empty() { "" } else { "\u{0}" }).replace('\u{0}', &row(2));
            assert_eq!(fs::read_to_string(&part).unwrap(), kept);
        }
        fs::remove_file(&part).unwrap();
        for foreign in ["mine\n", "mine"] {
            fs::write(&file, foreign).unwrap();
            assert_eq!(wanted(head, ours, &file, &part), Err("it does not begin as this export does".into()));
            assert!(!part.exists() && fs::read_to_string(&file).unwrap() == foreign);
        }
        // An export from a cursor is resumed.
        fs::write(&file, format!("{}{}", row(1), row(2))).unwrap();
        assert_eq!(wanted(head, ours, &file, &part).unwrap().unwrap().rows, 1);
        fs::remove_file(&part).unwrap();
        // A byte-order mark makes no difference; a torn one begins anew.
        fs::write(&file, format!("{BOM}{whole}")).unwrap();
        assert_eq!(wanted(head, ours, &file, &part).unwrap().unwrap().rows, 1);
        assert_eq!(fs::read_to_string(&part).unwrap(), format!("{BOM}{}", whole.replace(&row(2), "")));
        fs::remove_file(&part).unwrap();
        for torn in [&BOM.as_bytes()[..2], BOM.as_bytes(), format!("{BOM}run_").as_bytes()] {
            fs::write(&file, torn).unwrap();
            assert_eq!(wanted(head, ours, &file, &part), Ok(None));
            fs::remove_file(&part).unwrap();
        }
        // Nothing but a torn head: anew.
        fs::write(&file, &head[..9]).unwrap();
        assert_eq!(wanted(head, ours, &file, &part), Ok(None));
    }
}
