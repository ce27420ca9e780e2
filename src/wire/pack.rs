//! MessagePack: the same reading as of JSON, over the other encoding.
//!
//! A length is checked against what is left before it is believed. `bin` that is UTF-8 is text, text that is not is bytes; the
//! extension -1 is a time; a NumPy scalar, as the package `msgpack-numpy` writes it, is its number.

mod numpy;

use std::{borrow::Cow, fmt};

use super::{
    Limits,
    value::{Raw, Source, Value, put, write_text},
};
use crate::{
    frame::{Reason, Rejection},
    units::Micros,
};

/// The first bytes of a value: a scalar whole, of a container only how many items follow.
enum Head<'a> {
    Scalar(Value<'a>),
    List(usize),
    Map(usize),
}

/// Whether `bytes` is one value within the limits and nothing else; returns the length of the longest string.
///
/// # Errors
/// `malformed_msgpack`, `too_deep`, or `too_large` for a map with too many fields, or too many values in all.
pub(super) fn check(bytes: &[u8], limits: &Limits) -> Result<usize, Rejection> {
    let malformed =
        |what: &str, at: usize| Rejection { reason: Reason::MalformedMsgpack, detail: format!("{what} at byte {at}") };
    // For each open container: the values still to come, and whether it is a map, whose keys and values take turns.
    let mut open: Vec<(usize, bool)> = Vec::with_capacity(8);
    let (mut at, mut longest, mut elements) = (0, 0, 0_usize);
    loop {
        let key = open.last().is_some_and(|(left, map)| *map && left % 2 == 0);
        let (head, next) = head(bytes, at).ok_or_else(|| malformed("no value", at))?;
        if let Some((left, _)) = open.last_mut() {
            *left -= 1;
        }
        match head {
            Head::Scalar(value) => match value {
                Value::Text(text) => longest = longest.max(text.len()),
                Value::Bytes(Some(_), _) | Value::Time(_) if key => return Err(malformed("a key that is no text", at)),
                _ => {}
            },
            Head::List(_) | Head::Map(_) if key => return Err(malformed("a key that is no text", at)),
            Head::List(len) => open.push((len, false)),
            Head::Map(len) => {
                if len > limits.fields {
                    return Err(Limits::too_many_fields(limits.fields));
                }
                open.push((2 * len, true));
            }
        }
        if open.len() > limits.depth {
            return Err(Limits::too_deep(limits.depth));
        }
        elements += usize::from(!key);
        if elements > limits.elements {
            return Err(Limits::too_many_elements(limits.elements));
        }
        at = next;
        while open.last().is_some_and(|(left, _)| *left == 0) {
            open.pop();
        }
        if open.is_empty() {
            break;
        }
    }
    if at == bytes.len() { Ok(longest) } else { Err(malformed("something behind the message", at)) }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<([u8; N], usize)> {
    Some((*bytes.get(at..)?.first_chunk::<N>()?, at + N))
}

fn uint(bytes: &[u8], at: usize, width: usize) -> Option<(u64, usize)> {
    let slice = bytes.get(at..at.checked_add(width)?)?;
    Some((slice.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)), at + width))
}

fn length(bytes: &[u8], at: usize, width: usize) -> Option<(usize, usize)> {
    let (n, at) = uint(bytes, at, width)?;
    Some((usize::try_from(n).ok()?, at))
}

fn head(bytes: &[u8], at: usize) -> Option<(Head<'_>, usize)> {
    let first = *bytes.get(at)?;
    let at = at + 1;
    let list = |(len, at): (usize, usize)| (len <= bytes.len() - at).then_some((Head::List(len), at));
    let map = |(len, at): (usize, usize)| (len <= (bytes.len() - at) / 2).then_some((Head::Map(len), at));
    match first {
        0x80..=0x8f => return map((usize::from(first & 0x0f), at)),
        0xde => return map(length(bytes, at, 2)?),
        0xdf => return map(length(bytes, at, 4)?),
        0x90..=0x9f => return list((usize::from(first & 0x0f), at)),
        0xdc => return list(length(bytes, at, 2)?),
        0xdd => return list(length(bytes, at, 4)?),
        _ => {}
    }
    let (value, at) = match first {
        0x00..=0x7f => (Value::Int(i64::from(first)), at),
        0xe0..=0xff => (Value::Int(i64::from(first.cast_signed())), at),
        0xa0..=0xbf => text(bytes, (usize::from(first & 0x1f), at))?,
        0xc4 | 0xd9 => text(bytes, length(bytes, at, 1)?)?,
        0xc5 | 0xda => text(bytes, length(bytes, at, 2)?)?,
        0xc6 | 0xdb => text(bytes, length(bytes, at, 4)?)?,
        0xc7 => extension(bytes, length(bytes, at, 1)?)?,
        0xc8 => extension(bytes, length(bytes, at, 2)?)?,
        0xc9 => extension(bytes, length(bytes, at, 4)?)?,
        0xd4..=0xd8 => extension(bytes, (1 << (first - 0xd4), at))?,
        0xc0 => (Value::Null, at),
        0xc2 => (Value::Bool(false), at),
        0xc3 => (Value::Bool(true), at),
        0xca => take::<4>(bytes, at).map(|(raw, at)| (Value::Float(f64::from(f32::from_be_bytes(raw))), at))?,
        0xcb => take::<8>(bytes, at).map(|(raw, at)| (Value::Float(f64::from_be_bytes(raw)), at))?,
        0xcc..=0xcf => uint(bytes, at, 1 << (first - 0xcc)).map(|(n, at)| (unsigned(n), at))?,
        0xd0..=0xd3 => {
            let width = 1 << (first - 0xd0);
            let (n, at) = uint(bytes, at, width)?;
            let unused = 64 - 8 * width as u32;
            (Value::Int((n << unused).cast_signed() >> unused), at)
        }
        _ => return None,
    };
    Some((Head::Scalar(value), at))
}

fn unsigned(n: u64) -> Value<'static> {
    i64::try_from(n).map_or_else(|_| Value::Big(Cow::Owned(n.to_string())), Value::Int)
}

fn slice(bytes: &[u8], (len, at): (usize, usize)) -> Option<(&[u8], usize)> {
    let end = at.checked_add(len)?;
    Some((bytes.get(at..end)?, end))
}

/// `str` and `bin` alike.
fn text(bytes: &[u8], span: (usize, usize)) -> Option<(Value<'_>, usize)> {
    let (slice, end) = slice(bytes, span)?;
    let value = match std::str::from_utf8(slice) {
        Ok(text) => Value::Text(Cow::Borrowed(text)),
        Err(_) => Value::Bytes(None, slice),
    };
    Some((value, end))
}

fn extension(bytes: &[u8], (len, at): (usize, usize)) -> Option<(Value<'_>, usize)> {
    let kind = bytes.get(at)?.cast_signed();
    let (data, end) = slice(bytes, (len, at + 1))?;
    let time = if kind == -1 { timestamp(data) } else { None };
    Some((time.map_or(Value::Bytes(Some(kind), data), Value::Time), end))
}

/// The timestamp extension: 32 bits of seconds; 30 of nanoseconds and 34 of seconds; or 32 and 64.
fn timestamp(data: &[u8]) -> Option<Micros> {
    let (seconds, nanos) = match data.len() {
        4 => (i64::from(u32::from_be_bytes(data.try_into().ok()?)), 0),
        8 => {
            let packed = u64::from_be_bytes(data.try_into().ok()?);
            ((packed & ((1 << 34) - 1)).cast_signed(), (packed >> 34) as u32)
        }
        12 => {
            let (nanos, seconds) = data.split_first_chunk::<4>()?;
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes(*nanos))
        }
        _ => return None,
    };
    seconds.checked_mul(1_000_000)?.checked_add(i64::from(nanos).saturating_add(500) / 1_000)
}

/// The number of items of the container at `at`, and where the first begins.
pub(super) fn open(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    match head(bytes, at)? {
        (Head::List(len) | Head::Map(len), at) => Some((len, at)),
        (Head::Scalar(_), _) => None,
    }
}

/// Whether the value at `at` is a map, and not a scalar that is written as one.
pub(super) fn is_map(bytes: &[u8], at: usize) -> bool {
    match head(bytes, at) {
        Some((Head::Map(len), next)) => len != numpy::FIELDS || numpy::scalar(bytes, next).is_none(),
        _ => false,
    }
}

/// Reads the value at `at`; a container becomes a span.
pub(super) fn read(bytes: &[u8], at: usize) -> Option<(Value<'_>, usize)> {
    let raw = |len, end| Some(Raw { source: Source::Pack(bytes.get(at..end)?), len });
    match head(bytes, at)? {
        (Head::Scalar(value), end) => Some((value, end)),
        (Head::List(len), next) => {
            let end = skip(bytes, next, len)?;
            Some((Value::List(raw(len, end)?), end))
        }
        (Head::Map(len), next) => {
            let end = skip(bytes, next, 2 * len)?;
            if len == numpy::FIELDS
                && let Some(number) = numpy::scalar(bytes, next)
            {
                return Some((number, end));
            }
            Some((Value::Map(raw(len, end)?), end))
        }
    }
}

/// The position behind `left` values.
fn skip(bytes: &[u8], mut at: usize, mut left: usize) -> Option<usize> {
    while left > 0 {
        let (head, next) = head(bytes, at)?;
        at = next;
        left = left - 1
            + match head {
                Head::Scalar(_) => 0,
                Head::List(len) => len,
                Head::Map(len) => 2 * len,
            };
    }
    Some(at)
}

/// A key as text: numbers and the like as they would be written.
pub(super) fn key_text(key: Value<'_>) -> Cow<'_, str> {
    match key {
        Value::Text(text) => text,
        other => Cow::Owned(other.to_json().trim_matches('"').to_owned()),
    }
}

/// Appends a checked value as JSON.
pub(super) fn transcode<W: fmt::Write + ?Sized>(bytes: &[u8], out: &mut W) {
    // For each open container: the values still to come, and whether it is a map.
    let mut open: Vec<(usize, bool)> = Vec::new();
    let mut at = 0;
    while let Some((head, next)) = head(bytes, at) {
        at = next;
        let mut key = false;
        if let Some((left, map)) = open.last_mut() {
            key = *map && *left % 2 == 0;
            *left -= 1;
        }
        let mut opened = false;
        match head {
            Head::Scalar(value) if key => {
                write_text(out, &key_text(value));
                put(out, ":");
                continue;
            }
            Head::Scalar(value) => value.write_json(out),
            Head::List(len) => {
                put(out, "[");
                open.push((len, false));
                opened = len > 0;
            }
            Head::Map(len) => {
                put(out, "{");
                open.push((2 * len, true));
                opened = len > 0;
            }
        }
        while let Some((0, map)) = open.last() {
            put(out, if *map { "}" } else { "]" });
            open.pop();
        }
        if open.is_empty() {
            break;
        }
        if !opened {
            put(out, ",");
        }
    }
}
