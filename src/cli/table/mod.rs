//! Tables and lists of fields, as wide as the terminal. Without a terminal there is no limit: every column, nothing cut.

mod cell;
mod fit;

use std::borrow::Cow;

pub use cell::{Cell, count, escaped, exact, moment, number, short_id, status, text};

use super::width;
use crate::terminal::{self, Escaped};
use fit::{Extent, GAP, fit};

/// Width of a text on a terminal, so that one long name does not move the columns beside it away.
const TEXT_MAX: usize = 32;
/// Width to which a name can be cut that the row cannot be understood without.
const KEY_MIN: usize = 16;
/// Width of a header, unless its cells are wider.
const HEADER_MAX: usize = 16;
/// Least width of a column of rows that come one by one.
const RESERVED: usize = 9;
/// Width of the names in a list of fields.
const NAME_MAX: usize = 24;

/// A column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    header: Cow<'static, str>,
    /// The field that it shows, as `--json` names it; none: it is called like the header.
    field: Option<String>,
    rank: u8,
    is_long: bool,
    is_name: bool,
}

impl Column {
    /// A column that stays at any width.
    pub const fn key(header: &'static str) -> Self {
        Self::ranked(header, 0)
    }

    /// A column that is left out where there is no room; the one with the highest rank first.
    pub const fn ranked(header: &'static str, rank: u8) -> Self {
        Self { header: Cow::Borrowed(header), field: None, rank, is_long: false, is_name: false }
    }

    /// A column of names that stays at any width; other columns are left out before it is cut below 16 columns.
    pub const fn name(header: &'static str) -> Self {
        Self { header: Cow::Borrowed(header), field: None, rank: 0, is_long: false, is_name: true }
    }

    /// A column of sentences: as wide as there is room.
    pub const fn long(header: &'static str, rank: u8) -> Self {
        Self { header: Cow::Borrowed(header), field: None, rank, is_long: true, is_name: false }
    }

    /// A column whose header was received, not written here.
    pub fn named(header: &str, rank: u8) -> Self {
        let field = Some(header.to_owned());
        Self { header: Escaped(header).to_string().into(), field, rank, is_long: false, is_name: false }
    }

    /// The same as a column of this field.
    pub fn of(self, field: &str) -> Self {
        Self { field: Some(field.to_owned()), ..self }
    }

    /// What the column needs for these cells.
    fn extent<'a>(&self, cells: impl Iterator<Item = &'a Cell> + Clone, limit: Option<usize>) -> Extent {
        let header = width::columns(&self.header);
        let natural = |cell: &Cell| match cell {
            Cell::Text(_) if limit.is_some() && !self.is_long => cell.natural().min(TEXT_MAX),
            cell => cell.natural(),
        };
        let header = if limit.is_some() { header.min(HEADER_MAX) } else { header };
        let least = |cell: &Cell| match cell {
            Cell::Text(_) if self.is_name => cell.natural().min(KEY_MIN),
            cell => cell.least(),
        };
        let least = cells.clone().map(least).max().unwrap_or(0).max(header);
        Extent { natural: cells.map(natural).max().unwrap_or(0).max(least), least, rank: self.rank }
    }
}

/// A table that may go on for as long as rows come.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    limit: Option<usize>,
    /// Least width of each column.
    reserved: usize,
    /// The widest that each column was so far.
    extents: Vec<Option<Extent>>,
    widths: Vec<Option<usize>>,
    /// The fields that were last named as not shown.
    named: Vec<String>,
}

impl Table {
    /// A table as wide as the terminal.
    pub fn new(columns: Vec<Column>) -> Self {
        Self::within(columns, terminal::stdout_columns())
    }

    fn within(columns: Vec<Column>, limit: Option<usize>) -> Self {
        Self {
            extents: vec![None; columns.len()],
            widths: vec![None; columns.len()],
            columns,
            limit,
            reserved: 0,
            named: Vec::new(),
        }
    }

    /// The same for rows that come one by one: every column has room for numbers that are wider than the first.
    pub fn following(columns: Vec<Column>) -> Self {
        Self { reserved: RESERVED, ..Self::new(columns) }
    }

    /// The lines of these rows. The first ones have headers above them; so have, on a terminal, rows that need a column that was
    /// not shown or a wider one.
    pub fn lines(&mut self, rows: &[Vec<Cell>]) -> Vec<String> {
        let is_first = self.extents.iter().all(Option::is_none);
        let mut outgrown = false;
        for at in 0..self.columns.len() {
            let cells = rows.iter().filter_map(|row| row.get(at));
            // A column that is empty so far needs no room on a terminal; a program finds every column.
            if self.limit.is_some() && cells.clone().all(Cell::is_empty) {
                continue;
            }
            let now = self.columns[at].extent(cells, self.limit);
            let (before, width) = (self.extents[at], self.widths[at]);
            let is_hidden = before.is_some() && width.is_none();
            outgrown |= !is_hidden && width.is_none_or(|width| now.least > width);
            let (natural, least) =
                before.map_or((self.reserved, self.reserved), |before| (before.natural, before.least));
            self.extents[at] = Some(Extent { natural: now.natural.max(natural), least: now.least.max(least), ..now });
        }
        let mut lines = Vec::new();
        if is_first || (outgrown && self.limit.is_some()) {
            self.arrange();
            let headers: Vec<_> = self.columns.iter().map(|column| Cell::Text(column.header.to_string())).collect();
            if self.columns.iter().any(|column| !column.header.is_empty()) {
                lines.push(self.line(&headers, rows.first()));
            }
        }
        lines.extend(rows.iter().map(|row| self.line(row, Some(row))));
        lines
    }

    fn arrange(&mut self) {
        let used: Vec<_> = self.extents.iter().flatten().copied().collect();
        let mut widths = fit(&used, self.limit).into_iter();
        self.widths = self.extents.iter().map(|extent| extent.and_then(|_| widths.next().flatten())).collect();
    }

    /// One line. The headers of numbers are on the right, as their numbers are.
    fn line(&self, cells: &[Cell], like: Option<&Vec<Cell>>) -> String {
        let mut line = String::new();
        let shown =
            self.widths.iter().zip(cells).enumerate().filter_map(|(at, (width, cell))| Some((at, (*width)?, cell)));
        for (n, (at, columns, cell)) in shown.enumerate() {
            if n > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            let blanks = " ".repeat(columns.saturating_sub(width::columns(&cell.shown(columns))));
            let text = cell.coloured(columns);
            if like.and_then(|row| row.get(at)).is_some_and(Cell::is_number) {
                line.push_str(&blanks);
                line.push_str(&text);
            } else {
                line.push_str(&text);
                line.push_str(&blanks);
            }
        }
        line.truncate(line.trim_end_matches(' ').len());
        line
    }

    /// The fields that have cells, and for which there is no room.
    pub fn left_out(&self) -> Vec<&str> {
        let hidden = |at: &usize| self.extents[*at].is_some() && self.widths[*at].is_none();
        let name = |at: usize| self.columns[at].field.as_deref().unwrap_or(&*self.columns[at].header);
        (0..self.columns.len()).filter(hidden).map(name).collect()
    }

    /// What a terminal does not show: columns for which there is no room, and these fields that have none. Empty where all of that
    /// was named before, or where there is no terminal, whose programs ask for what they need.
    pub fn not_shown(&mut self, further: &[String]) -> Vec<String> {
        let names: Vec<String> =
            self.left_out().into_iter().map(str::to_owned).chain(further.iter().cloned()).collect();
        if self.limit.is_none() || names.iter().all(|name| self.named.contains(name)) {
            return Vec::new();
        }
        self.named.clone_from(&names);
        names
    }
}

/// Names and values, one beside the other, as lines. On a terminal long values are wrapped; those that need more room than there is
/// beside their name go below it.
pub fn field_lines(rows: &[(String, Cell)], limit: Option<usize>) -> Vec<String> {
    let longest =
        rows.iter().map(|(name, _)| width::columns(name)).filter(|name| limit.is_none() || *name <= NAME_MAX).max();
    let name_width = longest.unwrap_or(0);
    let mut lines = Vec::new();
    for (name, cell) in rows {
        let natural = cell.natural();
        let text = cell.coloured(natural);
        let indent = name_width + GAP;
        let padded = format!("{name}{}", " ".repeat(indent.saturating_sub(width::columns(name)).max(GAP)));
        let Some(limit) = limit else {
            lines.push(format!("{padded}{text}"));
            continue;
        };
        let fits_beside = width::columns(&padded) == indent;
        if fits_beside && indent + natural <= limit {
            lines.push(format!("{padded}{text}").trim_end_matches(' ').to_owned());
            continue;
        }
        let word = text.split([' ', ',']).map(|word| width::columns(word) + 1).max().unwrap_or(0);
        let beside = fits_beside && indent + word <= limit;
        let indent = if beside { indent } else { GAP };
        if !beside {
            lines.extend(width::wrap(name, limit).into_iter().map(str::to_owned));
        }
        for (n, part) in width::wrap(&text, limit.saturating_sub(indent).max(1)).into_iter().enumerate() {
            let before = if beside && n == 0 { padded.clone() } else { " ".repeat(indent) };
            lines.push(format!("{before}{part}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests;
