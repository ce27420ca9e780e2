//! Cells of a table: what they hold decides how they are aligned, cut and coloured.

use std::borrow::Cow;

use super::super::{colour, sparkline, width};
use crate::{render, terminal::Escaped, units::Micros};

/// Width to which text and curves can be cut.
const CUT_MIN: usize = 8;
/// Decimals of a number that is not a whole one; the exact number is in the JSON.
const DIGITS: i32 = 6;

/// A cell of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Text, which may be cut.
    Text(String),
    /// A time, an identifier or another text that is useless when it is cut.
    Whole(String),
    /// A number, on the right; never cut.
    Number(String),
    /// The status of a run.
    Status(String),
    /// A curve, which is drawn as wide as there is room.
    Curve(Vec<Option<f64>>),
}

/// Text fit to be shown.
pub fn escaped(text: &str) -> String {
    Escaped(text).to_string()
}

/// A cell of text.
pub fn text(value: Option<&str>) -> Cell {
    // Any client of Redis may have published it: control characters must not reach the terminal.
    Cell::Text(value.map(|value| Escaped(value).to_string()).unwrap_or_default())
}

/// A cell of a whole number.
pub fn count<T: ToString>(value: Option<T>) -> Cell {
    Cell::Number(value.map(|value| value.to_string()).unwrap_or_default())
}

/// A cell of a number with a fraction, rounded.
pub fn number(value: Option<f64>) -> Cell {
    Cell::Number(value.map(rounded).unwrap_or_default())
}

/// A cell of a time: UTC, to the second.
pub fn moment(value: Option<Micros>) -> Cell {
    Cell::Whole(value.map_or_else(String::new, |at| render::time(at)[..19].replace('T', " ")))
}

/// A cell of the status of a run.
pub fn status(value: Option<&str>) -> Cell {
    Cell::Status(value.map(|value| Escaped(value).to_string()).unwrap_or_default())
}

/// The beginning of an id; every command accepts a shortened one.
pub fn short_id(id: &str) -> Cell {
    Cell::Whole(id.get(..8).unwrap_or(id).to_owned())
}

/// Six significant digits at least; plain, but for numbers that are very small or very large.
fn rounded(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if !value.is_finite() {
        return value.to_string();
    }
    if !(1e-4..1e9).contains(&value.abs()) {
        return without_zeros(&format!("{value:.5e}"));
    }
    let decimals = (DIGITS - 1 - value.abs().log10().floor() as i32).max(0) as usize;
    without_zeros(&format!("{value:.decimals$}"))
}

/// The number without zeros at the end of its fraction.
fn without_zeros(number: &str) -> String {
    let (digits, exponent) = number.split_at(number.find('e').unwrap_or(number.len()));
    let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    format!("{digits}{exponent}")
}

/// Every digit of a number; plain, but for numbers that are very small or very large.
pub fn exact(value: f64) -> String {
    let plain = value == 0.0 || !value.is_finite() || (1e-4..1e9).contains(&value.abs());
    if plain { value.to_string() } else { format!("{value:e}") }
}

impl Cell {
    /// Whether it shows nothing.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) | Self::Whole(text) | Self::Number(text) | Self::Status(text) => text.is_empty(),
            Self::Curve(values) => values.iter().all(Option::is_none),
        }
    }

    /// Its width without any cut.
    pub fn natural(&self) -> usize {
        match self {
            Self::Text(text) | Self::Whole(text) | Self::Number(text) | Self::Status(text) => width::columns(text),
            Self::Curve(values) => values.len(),
        }
    }

    /// The width to which it can be cut.
    pub fn least(&self) -> usize {
        match self {
            Self::Text(_) | Self::Curve(_) => self.natural().min(CUT_MIN),
            Self::Whole(_) | Self::Number(_) | Self::Status(_) => self.natural(),
        }
    }

    /// Whether it belongs on the right.
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Number(_))
    }

    /// Its text in this width, without colour.
    pub fn shown(&self, columns: usize) -> Cow<'_, str> {
        match self {
            Self::Text(text) => width::cut(text, columns),
            Self::Whole(text) | Self::Number(text) | Self::Status(text) => text.into(),
            Self::Curve(values) => sparkline::line(sparkline::narrowed(values, columns).into_iter()).into(),
        }
    }

    /// Its text at this width, in the colour of what it says.
    pub fn coloured(&self, columns: usize) -> String {
        let shown = self.shown(columns);
        if let Self::Status(status) = self { colour::of_status(status, &shown) } else { shown.into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_plain_where_people_read_them() {
        for (value, shown) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (100.0, "100"),
            (0.712_345_678, "0.712346"),
            (1e-4, "0.0001"),
            (-0.000_123_456_789, "-0.000123457"),
            (0.000_099_9, "9.99e-5"),
            (1e-5, "1e-5"),
            (-1.234_567_8e-7, "-1.23457e-7"),
            (3e16, "3e16"),
            (1_234.567_89, "1234.57"),
            (9_999_999.7, "10000000"),
            (1e7, "10000000"),
            (123_456_789.5, "123456790"),
            (2.5e12, "2.5e12"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(rounded(value), shown);
        }
        assert_eq!((exact(0.1 + 0.2).as_str(), exact(1e-7).as_str()), ("0.30000000000000004", "1e-7"));
    }
}
