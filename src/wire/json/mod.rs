//! JSON as Python writes it: RFC 8259 plus `NaN`, `Infinity` and `-Infinity`.
//!
//! [`check`] goes over the whole text once, without recursion and without building anything; everything else here reads text
//! that has passed it. A lone surrogate escape is accepted and becomes U+FFFD.

mod check;

use std::{borrow::Cow, fmt};

pub(super) use self::check::{Checked, check};
use super::{
    value::{Encoded, Raw, Value},
    write::{put, write_double, write_text},
};

/// The first position from `at` on that is not an ordinary character of a string.
fn plain_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let (words, _) = rest.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return at + n * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let tail = words.len() * 8;
    let in_tail = rest[tail..].iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\'));
    at + tail + in_tail.unwrap_or(rest.len() - tail)
}

/// The highest bit of each byte that is a quote, a backslash or a control character; above the first such byte, also the bits of
/// some ordinary bytes.
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) | control) & (ONES * 0x80)
}

/// The first position from `at` on that is not white space.
pub(super) fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

fn hex(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.iter().try_fold(0, |unit, byte| Some(unit * 16 + char::from(*byte).to_digit(16)?))
}

fn low_surrogate(bytes: &[u8], at: usize) -> Option<u32> {
    if bytes.get(at..at + 2)? != b"\\u" {
        return None;
    }
    hex(bytes, at + 2).filter(|unit| (0xdc00..0xe000).contains(unit))
}

fn double(digits: &str) -> f64 {
    digits.parse().unwrap_or(f64::NAN)
}

/// Steps from one item to the next; false at the end of the container, and then `at` is behind it.
pub(super) fn step(text: &str, at: &mut usize) -> bool {
    let bytes = text.as_bytes();
    *at = skip_space(bytes, *at);
    if bytes.get(*at) == Some(&b',') {
        *at = skip_space(bytes, *at + 1);
    }
    match bytes.get(*at) {
        None => false,
        Some(b'}' | b']') => {
            *at += 1;
            false
        }
        Some(_) => true,
    }
}

/// The position of the value that follows a key.
pub(super) fn after_colon(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    skip_space(bytes, skip_space(bytes, at) + 1)
}

/// The end of the string that opens at `at`, and whether it holds escapes.
fn string_end(bytes: &[u8], at: usize) -> (usize, bool) {
    let mut escaped = false;
    let mut at = at + 1;
    loop {
        at = plain_end(bytes, at);
        match bytes.get(at) {
            None => return (bytes.len(), escaped),
            Some(b'"') => return (at, escaped),
            Some(b'\\') => {
                escaped = true;
                at += 2;
            }
            Some(_) => at += 1,
        }
    }
}

/// Reads the string that opens at `at`.
pub(super) fn read_text(text: &str, at: usize) -> Option<(Cow<'_, str>, usize)> {
    let (end, escaped) = string_end(text.as_bytes(), at);
    let inner = text.get(at + 1..end)?;
    let inner = if escaped { Cow::Owned(unescape(inner)) } else { Cow::Borrowed(inner) };
    Some((inner, end + 1))
}

fn unescape(inner: &str) -> String {
    let bytes = inner.as_bytes();
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(plain) = rest.find('\\') {
        out.push_str(&rest[..plain]);
        let at = inner.len() - rest.len() + plain + 1;
        let mut used = 1;
        match bytes.get(at) {
            Some(b'n') => out.push('\n'),
            Some(b'r') => out.push('\r'),
            Some(b't') => out.push('\t'),
            Some(b'b') => out.push('\u{8}'),
            Some(b'f') => out.push('\u{c}'),
            Some(b'u') => {
                let mut unit = hex(bytes, at + 1).unwrap_or(0xfffd);
                used = 5;
                if (0xd800..0xdc00).contains(&unit)
                    && let Some(low) = low_surrogate(bytes, at + 5)
                {
                    unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                    used = 11;
                }
                out.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(byte) => out.push(char::from(*byte)),
            None => {}
        }
        rest = inner.get(at + used..).unwrap_or("");
    }
    out.push_str(rest);
    out
}

/// Reads the value at `at`; a container becomes a span.
pub(super) fn read(text: &str, at: usize) -> Option<(Value<'_>, usize)> {
    let bytes = text.as_bytes();
    let word = |value, length| Some((value, at + length));
    match bytes.get(at)? {
        b'"' => read_text(text, at).map(|(text, at)| (Value::Text(text), at)),
        first @ (b'{' | b'[') => {
            let (end, len) = skip_container(bytes, at);
            let raw = Raw { encoded: Encoded::Json(text.get(at..end)?), len };
            Some((if *first == b'{' { Value::Map(raw) } else { Value::List(raw) }, end))
        }
        b't' => word(Value::Bool(true), 4),
        b'f' => word(Value::Bool(false), 5),
        b'n' => word(Value::Null, 4),
        b'N' => word(Value::Float(f64::NAN), 3),
        b'I' => word(Value::Float(f64::INFINITY), 8),
        b'-' if bytes.get(at + 1) == Some(&b'I') => word(Value::Float(f64::NEG_INFINITY), 9),
        _ => {
            let (end, integer) = number_end(bytes, at);
            let digits = text.get(at..end)?;
            if !integer {
                return Some((Value::Float(double(digits)), end));
            }
            let value = match digits.parse::<i64>() {
                // -0 is the double it looks like to every producer.
                Ok(0) if digits.starts_with('-') => Value::Float(-0.0),
                Ok(n) => Value::Int(n),
                Err(_) => match double(digits) {
                    huge if huge.is_infinite() => Value::Float(huge),
                    _ => Value::Big(Cow::Borrowed(digits)),
                },
            };
            Some((value, end))
        }
    }
}

fn number_end(bytes: &[u8], mut at: usize) -> (usize, bool) {
    let mut integer = true;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'0'..=b'9' | b'-' => {}
            b'.' | b'e' | b'E' | b'+' => integer = false,
            _ => break,
        }
        at += 1;
    }
    (at, integer)
}

/// The end of the container that opens at `at`, and the number of its items.
fn skip_container(bytes: &[u8], mut at: usize) -> (usize, usize) {
    let mut depth = 0_usize;
    let mut len = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at).0,
            b'{' | b'[' => {
                depth += 1;
                if depth == 1 {
                    len = usize::from(!matches!(bytes.get(skip_space(bytes, at + 1)), Some(b'}' | b']')));
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return (at + 1, len);
                }
            }
            b',' if depth == 1 => len += 1,
            _ => {}
        }
        at += 1;
    }
    (bytes.len(), len)
}

/// The end of the item at `at` of an array that may be malformed: its comma, or what closes the array.
pub(super) fn item_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        at = match byte {
            b'"' => string_end(bytes, at).0 + 1,
            b'{' | b'[' => skip_container(bytes, at).0,
            b',' | b']' => return at,
            _ => at + 1,
        };
    }
    bytes.len()
}

/// Appends checked JSON as JSON that every reader takes.
pub(super) fn transcode<W: fmt::Write + ?Sized>(text: &str, out: &mut W) {
    let bytes = text.as_bytes();
    let (mut at, mut copied) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        let end = match byte {
            b'"' => {
                let (end, escaped) = string_end(bytes, at);
                if escaped && let Some(inner) = text.get(at + 1..end) {
                    put(out, &text[copied..at]);
                    write_text(out, &unescape(inner));
                    copied = end + 1;
                }
                end + 1
            }
            b'N' | b'I' | b'-' | b'0'..=b'9' => match read(text, at) {
                Some((Value::Float(x), end)) if !x.is_finite() => {
                    put(out, &text[copied..at]);
                    write_double(out, x);
                    copied = end;
                    end
                }
                Some((_, end)) => end,
                None => at + 1,
            },
            _ => at + 1,
        };
        at = end;
    }
    put(out, text.get(copied..).unwrap_or(""));
}
