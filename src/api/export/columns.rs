//! The columns of a CSV file. Metrics rows have a column for each name in `extra`, unless the fixed columns are asked for.

use std::{collections::BTreeSet, fmt, sync::Arc};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::event::extra_label;

/// The columns of metrics rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Columns {
    /// Those of the table: `extra` holds all other numbers.
    Fixed,
    /// The same and one for each of these names, which are in byte order; `extra` is the last one and holds numbers of other names.
    Names(Arc<[String]>),
}

/// How rows are written as CSV.
#[derive(Clone, Debug)]
pub struct CsvStyle {
    /// Whether texts are left unchanged, even those that a spreadsheet would run as formulas.
    pub raw: bool,
    /// The columns of metrics rows.
    pub columns: Columns,
}

impl CsvStyle {
    /// The cells of the metrics in the head.
    pub fn metric_cells(&self) -> impl Iterator<Item = String> {
        let names: &[String] = if let Columns::Names(names) = &self.columns { names } else { &[] };
        names.iter().map(|name| metric_cell(name, self.raw))
    }
}

/// Whether a spreadsheet would read this text as a formula. Leading white space does not prevent that, and some spreadsheets accept
/// full-width characters.
pub fn is_formula(text: &str) -> bool {
    let first = text.trim_start_matches(|c: char| c.is_whitespace() || c.is_control()).chars().next();
    first.is_some_and(|c| "=+-@＝＋－＠".contains(c))
}

/// The cell of a metric in the head; each name has its own.
fn metric_cell(name: &str, raw: bool) -> String {
    let label = extra_label(name);
    // A name that begins with the quotation mark gets one more, so that it stays apart from a quoted one.
    let is_quoted = !raw && is_formula(label.trim_start_matches('\''));
    [if is_quoted { "'" } else { "" }, &label].concat()
}

/// Maximum cells in a [`HeadId`] that is sent in a trailer, which clients limit to 16 KiB.
pub const TRAILER_CELLS_MAX: usize = 1_024;

/// Bits of the hash of a cell: three characters.
const CELL_BITS: u32 = 18;
/// Characters of six bits, as in base64 for URLs.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Identifies the metric columns of a file, so that it can be continued after its run got more metrics.
///
/// It has the hash of all cells, and a short hash of each in order, by which they are found among more names. The text is part of a
/// cursor: 16 hexadecimal digits, then three characters a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadId {
    whole: u64,
    /// Empty if there are too many; they are found only if there are no others.
    cells: Vec<u32>,
}

impl HeadId {
    /// Of these cells; without their short hashes if they are more than `most`.
    pub fn of<T: AsRef<str>>(cells: &[T], most: usize) -> Self {
        let mut whole = Xxh3::new();
        for cell in cells {
            whole.update(&(cell.as_ref().len() as u64).to_le_bytes());
            whole.update(cell.as_ref().as_bytes());
        }
        let listed = if cells.len() > most { &[] } else { cells };
        Self { whole: whole.digest(), cells: listed.iter().map(|cell| short_hash(cell.as_ref())).collect() }
    }

    /// The inverse of its text.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, cells) = text.split_at_checked(16)?;
        let digit = |byte: &u8| DIGITS.iter().position(|digit| digit == byte).map(|at| at as u32);
        let cell = |chars: &[u8]| chars.iter().try_fold(0, |cell, byte| Some(cell << 6 | digit(byte)?));
        let cells = cells.as_bytes().chunks(3).map(|chars| cell(chars).filter(|_| chars.len() == 3));
        Some(Self { whole: u64::from_str_radix(whole, 16).ok()?, cells: cells.collect::<Option<_>>()? })
    }

    /// The names that these columns are of; `None`: they cannot be found among `names`.
    pub fn select(&self, names: BTreeSet<String>, raw: bool) -> Option<Columns> {
        let all = self.cells.is_empty() && *self != Self::of::<&str>(&[], 0);
        let mut wanted = self.cells.iter().peekable();
        let mut is_wanted =
            |name: &String| all || wanted.next_if(|cell| **cell == short_hash(&metric_cell(name, raw))).is_some();
        let names: Arc<[String]> = names.into_iter().filter(|name| is_wanted(name)).collect();
        let style = CsvStyle { raw, columns: Columns::Names(names) };
        let cells: Vec<_> = style.metric_cells().collect();
        (Self::of(&cells, 0).whole == self.whole).then_some(style.columns)
    }
}

impl fmt::Display for HeadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.whole)?;
        for cell in &self.cells {
            for shift in [12, 6, 0] {
                write!(f, "{}", char::from(DIGITS[(cell >> shift & 63) as usize]))?;
            }
        }
        Ok(())
    }
}

fn short_hash(cell: &str) -> u32 {
    (xxh3_64(cell.as_bytes()) >> (u64::BITS - CELL_BITS)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: impl IntoIterator<Item = impl Into<String>>) -> BTreeSet<String> {
        of.into_iter().map(Into::into).collect()
    }

    fn cells(names: &BTreeSet<String>, raw: bool) -> Vec<String> {
        let columns = Columns::Names(names.iter().cloned().collect());
        CsvStyle { raw, columns }.metric_cells().collect()
    }

    #[test]
    fn every_name_has_a_cell_of_its_own_that_no_spreadsheet_runs() {
        let odd = names(["=1", "'=1", "''=1", "-x", "a", "'a", "epoch", "extra.epoch", "", "\t+x", "＠"]);
        let quoted = cells(&odd, false);
        assert_eq!(quoted.iter().collect::<BTreeSet<_>>().len(), odd.len(), "{quoted:?}");
        assert!(quoted.iter().all(|cell| !is_formula(cell)), "{quoted:?}");
        for cell in ["'=1", "''=1", "'''=1", "'-x", "a", "'a", "extra.epoch", "extra.extra.epoch", ""] {
            assert!(quoted.iter().any(|quoted| quoted == cell), "{cell}: {quoted:?}");
        }
        assert!(cells(&odd, true).contains(&"=1".to_owned()));
    }

    #[test]
    fn columns_are_found_again_among_more_names() {
        let many = |n: usize| names((0..n).map(|n| format!("n{n}")));
        for (begun, later, most) in [
            (names([""; 0]), names(["a", "b"]), 9),
            (names(["b", "=d"]), names(["a", "b", "c", "=d", "e"]), 9),
            (many(4_096), many(4_096), 4_096),
            (many(4_096), many(8_192), 4_096),
            (many(10), many(10), 9),
        ] {
            let head = HeadId::of(&cells(&begun, false), most);
            let text = head.to_string();
            assert!(text.len() <= 16 + 3 * 4_096, "it fits the head of a request");
            let read = HeadId::parse(&text).unwrap();
            assert_eq!(read, head);
            assert_eq!(read.select(later, false), Some(Columns::Names(begun.into_iter().collect())));
        }
        let head = HeadId::of(&cells(&many(10), false), 9);
        assert_eq!(head.select(many(11), false), None, "without the cells only the same names do");
        let head = HeadId::of(&cells(&names(["a", "b"]), false), 9);
        assert_eq!(head.select(names(["a", "c"]), false), None, "a name is gone");
        for text in ["", "0", "0123456789abcdefab", "0123456789abcdefab!", "xyz3456789abcdefabc", "ü0123456789abcdef"]
        {
            assert_eq!(HeadId::parse(text), None, "{text}");
        }
    }
}
