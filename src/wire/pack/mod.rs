//! MessagePack: the same reading as of JSON, over the other encoding.
//!
//! Heads are read by `rmp`, which knows the format; a length is checked against what is left before it is believed. `bin` that is UTF-8 is text, text that is not is bytes; the
//! extension -1 is a time; a NumPy scalar, as the package `msgpack-numpy` writes it, is its number.

mod numpy;

use std::{borrow::Cow, fmt};

use rmp::{Marker, decode};

use super::{
    Limits,
    value::{Encoded, Raw, Value},
    write::{put, write_text},
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

/// The head of the value at `at`, and where what follows it begins. `None`: there is none, or it says that more follows than there is.
fn head(bytes: &[u8], at: usize) -> Option<(Head<'_>, usize)> {
    let mut rest = bytes.get(at..)?;
    let scalar = match Marker::from_u8(*rest.first()?) {
        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => {
            let len = decode::read_map_len(&mut rest).ok()? as usize;
            return (len <= rest.len() / 2).then_some((Head::Map(len), bytes.len() - rest.len()));
        }
        Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => {
            let len = decode::read_array_len(&mut rest).ok()? as usize;
            return (len <= rest.len()).then_some((Head::List(len), bytes.len() - rest.len()));
        }
        Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => {
            let len = decode::read_str_len(&mut rest).ok()?;
            text(split(&mut rest, len)?)
        }
        Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => {
            let len = decode::read_bin_len(&mut rest).ok()?;
            text(split(&mut rest, len)?)
        }
        Marker::Null => decode::read_nil(&mut rest).ok().map(|()| Value::Null)?,
        Marker::True | Marker::False => Value::Bool(decode::read_bool(&mut rest).ok()?),
        Marker::F32 => Value::Float(decode::read_f32(&mut rest).ok()?.into()),
        Marker::F64 => Value::Float(decode::read_f64(&mut rest).ok()?),
        Marker::U64 => unsigned(decode::read_u64(&mut rest).ok()?),
        Marker::FixPos(_) | Marker::FixNeg(_) | Marker::U8 | Marker::U16 | Marker::U32 => {
            Value::Int(decode::read_int(&mut rest).ok()?)
        }
        Marker::I8 | Marker::I16 | Marker::I32 | Marker::I64 => Value::Int(decode::read_int(&mut rest).ok()?),
        Marker::Reserved => return None,
        // All that is left are extensions.
        _ => {
            let meta = decode::read_ext_meta(&mut rest).ok()?;
            extension(meta.typeid, split(&mut rest, meta.size)?)
        }
    };
    Some((Head::Scalar(scalar), bytes.len() - rest.len()))
}

/// Takes the first `len` bytes.
fn split<'a>(rest: &mut &'a [u8], len: u32) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len as usize)?;
    *rest = left;
    Some(taken)
}

fn unsigned(n: u64) -> Value<'static> {
    i64::try_from(n).map_or_else(|_| Value::Big(Cow::Owned(n.to_string())), Value::Int)
}

/// `str` and `bin` alike.
fn text(bytes: &[u8]) -> Value<'_> {
    std::str::from_utf8(bytes).map_or(Value::Bytes(None, bytes), |text| Value::Text(Cow::Borrowed(text)))
}

fn extension(kind: i8, data: &[u8]) -> Value<'_> {
    let time = if kind == -1 { timestamp(data) } else { None };
    time.map_or(Value::Bytes(Some(kind), data), Value::Time)
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

/// Where the value at `at` ends, if it is whole.
pub(super) fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    skip(bytes, at, 1)
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
    let raw = |len, end| Some(Raw { encoded: Encoded::Pack(bytes.get(at..end)?), len });
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
        other => {
            let mut json = String::new();
            other.write_scalar(&mut json);
            Cow::Owned(json.trim_matches('"').to_owned())
        }
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
            Head::Scalar(value) => value.write_scalar(out),
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
