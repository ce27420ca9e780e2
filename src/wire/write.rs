//! Values written as JSON that every reader takes, into a text or into what only counts its bytes.

use std::fmt;

use crate::units::Micros;

/// Appends text to a string, or to what only counts: neither can fail.
pub(super) fn put<W: fmt::Write + ?Sized>(out: &mut W, text: &str) {
    let _ = out.write_str(text);
}

pub(super) fn write_display<W: fmt::Write + ?Sized>(out: &mut W, value: impl fmt::Display) {
    let _ = write!(out, "{value}");
}

/// Takes text and keeps its length only.
#[derive(Debug, Default)]
pub(super) struct ByteCounter(pub(super) usize);

impl fmt::Write for ByteCounter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

/// Appends a double: the shortest text that reads back the same, or a string where it is not finite.
pub(super) fn write_double<W: fmt::Write + ?Sized>(out: &mut W, x: f64) {
    if x.is_finite() {
        let _ = write!(out, "{x:?}");
    } else {
        let name = match x {
            f64::INFINITY => "\"Infinity\"",
            f64::NEG_INFINITY => "\"-Infinity\"",
            _ => "\"NaN\"",
        };
        put(out, name);
    }
}

/// Appends a JSON string.
pub(super) fn write_text<W: fmt::Write + ?Sized>(out: &mut W, text: &str) {
    put(out, "\"");
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        put(out, &text[from..at]);
        from = at + 1;
        match byte {
            b'"' => put(out, "\\\""),
            b'\\' => put(out, "\\\\"),
            b'\n' => put(out, "\\n"),
            b'\r' => put(out, "\\r"),
            b'\t' => put(out, "\\t"),
            // As short as it may have been: JSON must not grow.
            0x08 => put(out, "\\b"),
            0x0c => put(out, "\\f"),
            _ => {
                let _ = write!(out, "\\u{byte:04x}");
            }
        }
    }
    put(out, &text[from..]);
    put(out, "\"");
}

/// Appends bytes as `"hex:…"`, an extension as `"ext:<type>:…"`.
pub(super) fn write_bytes<W: fmt::Write + ?Sized>(out: &mut W, kind: Option<i8>, bytes: &[u8]) {
    put(out, "\"");
    let _ = match kind {
        Some(kind) => write!(out, "ext:{kind}:"),
        None => write!(out, "hex:"),
    };
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    put(out, "\"");
}

/// Appends a moment as a JSON string.
pub(super) fn write_moment<W: fmt::Write + ?Sized>(out: &mut W, micros: Micros) {
    put(out, "\"");
    write_time(out, micros);
    put(out, "\"");
}

/// Appends `micros` as RFC 3339 in UTC with microseconds.
pub fn write_time<W: fmt::Write + ?Sized>(out: &mut W, micros: Micros) {
    let days = micros.div_euclid(86_400_000_000) + 719_468;
    let of_day = micros.rem_euclid(86_400_000_000);
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let seconds = of_day / 1_000_000;
    let mut number = |value: i64, width: u32, after: &str| {
        for place in (0..width).rev() {
            // Every part is below its power of ten, so each step is one digit.
            let digit = value / 10_i64.pow(place) % 10;
            let _ = out.write_char(char::from(b'0' + u8::try_from(digit).unwrap_or(0)));
        }
        let _ = out.write_str(after);
    };
    // RFC 3339 knows four digits; no plausible time needs more.
    number(year.clamp(0, 9_999), 4, "-");
    number(month, 2, "-");
    number(day, 2, "T");
    number(seconds / 3_600, 2, ":");
    number(seconds / 60 % 60, 2, ":");
    number(seconds % 60, 2, ".");
    number(of_day % 1_000_000, 6, "Z");
}
