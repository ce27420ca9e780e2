//! Where an earlier export ended.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader},
    path::Path,
};

use serde_json::Value;
use uuid::Uuid;

use crate::render;

/// What is there already.
#[derive(Debug, PartialEq, Eq)]
pub struct Begun {
    /// Behind its last row.
    pub cursor: String,
    /// How many rows.
    pub rows: u64,
}

/// Looks at the part, or makes the finished file a part again. The last row is dropped: it may be torn.
///
/// # Errors
/// When a file cannot be read, renamed or cut.
pub fn begun(file: &Path, part: &Path, format: &str) -> io::Result<Option<Begun>> {
    if !part.exists() {
        if !file.exists() {
            return Ok(None);
        }
        fs::rename(file, part)?;
    }
    let mut reader = BufReader::with_capacity(1 << 20, File::open(part)?);
    let (mut at, mut line, mut rows) = (0_u64, Vec::new(), 0_u64);
    // The last two rows: where each begins, and where it is in the run.
    let (mut last, mut before): (Option<(u64, String)>, Option<String>) = (None, None);
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)? as u64;
        if read == 0 {
            break;
        }
        // A line that is no row is within a text of the row before, or the head.
        if let Some(cursor) = cursor(&line, format) {
            rows += 1;
            before = last.take().map(|(_, cursor)| cursor);
            last = Some((at, cursor));
        }
        at += read;
    }
    let (Some((begins, _)), Some(cursor)) = (last, before) else { return Ok(None) };
    OpenOptions::new().write(true).open(part)?.set_len(begins)?;
    Ok(Some(Begun { cursor, rows: rows - 1 }))
}

/// Where the row that this line begins is in its run.
fn cursor(line: &[u8], format: &str) -> Option<String> {
    let (run_id, time, event_id) = if format == "csv" {
        let mut cells = line.splitn(4, |byte| *byte == b',').map(|cell| std::str::from_utf8(cell).ok());
        (cells.next()??.to_owned(), cells.next()??.to_owned(), cells.next()??.parse::<i64>().ok()?)
    } else {
        let row: Value = serde_json::from_slice(line).ok()?;
        (row["run_id"].as_str()?.to_owned(), row["timestamp"].as_str()?.to_owned(), row["event_id"].as_i64()?)
    };
    let run_id = Uuid::try_parse(&run_id).ok()?;
    Some(format!("{}.{}.{event_id}", run_id.as_simple(), render::parse_time(&time).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_row_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let (file, part) = (folder.path().join("a.csv"), folder.path().join("a.csv.part"));
        assert_eq!(begun(&file, &part, "csv").unwrap(), None);
        let row =
            |n: u32| format!("00000000-0000-0000-0000-000000000007,2025-11-20T10:15:0{n}.000001Z,{n},\"a\nb\",1\r\n");
        let whole = format!("run_id,timestamp,event_id,x,y\r\n{}{}", row(1), row(2));
        for torn in ["", "00000000-0000-0000-0000-000000000007,2025-11-20T10:15:03.000001Z,3,\"a\nb"] {
            fs::write(&part, format!("{whole}{torn}")).unwrap();
            let begun = begun(&file, &part, "csv").unwrap().unwrap();
            let expected = if torn.is_empty() { 1 } else { 2 };
            assert_eq!(begun.rows, expected);
            assert!(
                begun.cursor.starts_with("00000000000000000000000000000007.17636337")
                    && begun.cursor.ends_with(&format!("1.{expected}"))
            );
            let kept = whole.replace(&row(2), if torn.is_empty() { "" } else { "\u{0}" }).replace('\u{0}', &row(2));
            assert_eq!(fs::read_to_string(&part).unwrap(), kept);
        }
    }
}
