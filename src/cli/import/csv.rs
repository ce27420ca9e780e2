//! CSV as RFC 4180 has it, record by record, in bounded memory: a quote that is not closed is an error that names its line, and does
//! not swallow the rest of the file.

use std::io::{self, BufRead, Read};

/// A longer record is the sign of a quote that is not closed.
const RECORD_BYTES_MAX: usize = 32 << 20;

/// Reads records.
pub struct CsvReader<R> {
    input: R,
    lines: u64,
}

/// A record, and the line on which it begins.
#[derive(Debug, PartialEq)]
pub struct Record {
    /// From 1.
    pub line: u64,
    /// The bytes of its cells, without quotes.
    pub cells: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    CellStart,
    Plain,
    Quoted,
    /// Behind a quote within quotes: an escaped one, or the end of the cell.
    QuoteInQuoted,
}

impl<R: BufRead> CsvReader<R> {
    /// Reads from `input`, of which so many lines were read.
    pub fn new(input: R, lines: u64) -> Self {
        Self { input, lines }
    }

    /// The next record that is no empty line.
    ///
    /// # Errors
    /// When reading fails, or a quote is not closed.
    pub fn next(&mut self) -> io::Result<Option<Record>> {
        loop {
            let Some(record) = self.record()? else { return Ok(None) };
            if record.cells.iter().any(|cell| !cell.is_empty()) || record.cells.len() > 1 {
                return Ok(Some(record));
            }
        }
    }

    fn record(&mut self) -> io::Result<Option<Record>> {
        let (first, mut bytes) = (self.lines + 1, 0);
        let (mut cells, mut cell, mut state) = (Vec::new(), Vec::new(), State::CellStart);
        loop {
            let mut line = Vec::new();
            let read = (&mut self.input).take(RECORD_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
            bytes += read;
            let unclosed = |what| {
                let detail = format!("the quote of the record that begins on line {first} is not closed{what}");
                io::Error::new(io::ErrorKind::InvalidData, detail)
            };
            if read == 0 {
                return if state == State::Quoted { Err(unclosed("")) } else { Ok(None) };
            }
            if bytes > RECORD_BYTES_MAX {
                return Err(unclosed(" within 32 MiB"));
            }
            self.lines += 1;
            let end = line.len() - if line.ends_with(b"\r\n") { 2 } else { usize::from(line.ends_with(b"\n")) };
            for byte in &line[..end] {
                state = step(state, *byte, &mut cell, &mut cells);
            }
            if state != State::Quoted {
                cells.push(cell);
                return Ok(Some(Record { line: first, cells }));
            }
            cell.extend_from_slice(&line[end..]);
        }
    }
}

fn step(state: State, byte: u8, cell: &mut Vec<u8>, cells: &mut Vec<Vec<u8>>) -> State {
    match (state, byte) {
        (State::CellStart, b'"') => State::Quoted,
        (State::Quoted, b'"') => State::QuoteInQuoted,
        (State::CellStart | State::Plain | State::QuoteInQuoted, b',') => {
            cells.push(std::mem::take(cell));
            State::CellStart
        }
        (state, byte) => {
            cell.push(byte);
            if state == State::Quoted || (state == State::QuoteInQuoted && byte == b'"') {
                State::Quoted
            } else {
                State::Plain
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(u64, Vec<String>)>, String> {
        let mut reader = CsvReader::new(text.as_bytes(), 0);
        let mut records = Vec::new();
        while let Some(record) = reader.next().map_err(|error| error.to_string())? {
            let shown = |cell| String::from_utf8(cell).unwrap();
            records.push((record.line, record.cells.into_iter().map(shown).collect()));
        }
        Ok(records)
    }

    #[test]
    fn cells_are_those_of_the_rfc_and_lines_are_counted() {
        for (text, records) in [
            ("", &[][..]),
            ("a,b\r\n1,2\r\n", &[(1, &["a", "b"][..]), (2, &["1", "2"])]),
            ("a\n\n\n1", &[(1, &["a"]), (4, &["1"])]),
            (",\n\"\",x", &[(1, &["", ""]), (2, &["", "x"])]),
            ("\"a,\"\"b\"\"\r\nc\",2\nlast", &[(1, &["a,\"b\"\r\nc", "2"]), (3, &["last"])]),
            ("5\" disk,\"a\"b\n", &[(1, &["5\" disk", "ab"])]),
        ] {
            let expected: Vec<_> =
                records.iter().map(|(line, cells)| (*line, cells.iter().map(ToString::to_string).collect())).collect();
            assert_eq!(read(text), Ok(expected), "{text:?}");
        }
        assert!(read("a\n\"b\nc\n").unwrap_err().contains("line 2"));
    }
}
