//! One borrowed view of a decoded value, whichever the encoding.
//!
//! Scalars are read; lists and maps stay spans of bytes until somebody walks them with [`Items`], so that a large message costs
//! no more memory than its own bytes. Spans come from a message that was checked whole, so walking them cannot fail; where a
//! walk meets what a check would have refused, it ends.

use std::{borrow::Cow, fmt};

use super::{json, pack, time};
use crate::units::Micros;

/// A value inside a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Absent.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// An integer beyond that, in decimal.
    Big(Cow<'a, str>),
    /// Any other number; may be NaN or infinite.
    Float(f64),
    /// A string.
    Text(Cow<'a, str>),
    /// A MessagePack timestamp.
    Time(Micros),
    /// MessagePack bytes that are no text, or an extension with its type.
    Bytes(Option<i8>, &'a [u8]),
    /// A list.
    List(Raw<'a>),
    /// A map.
    Map(Raw<'a>),
}

/// A list or map that was not looked into.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Raw<'a> {
    /// Its bytes, from the opening to the closing one.
    pub encoded: Encoded<'a>,
    /// Its elements or entries.
    pub len: usize,
}

/// Bytes and their encoding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Encoded<'a> {
    /// JSON text.
    Json(&'a str),
    /// MessagePack.
    Pack(&'a [u8]),
}

/// What a field holds where a number is expected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i64),
    /// An integer that fits no column.
    TooLarge,
    Float(f64),
    None,
}

impl<'a> Value<'a> {
    /// The number, also where it comes as text or as the one item of a list; `5.0` is an integer.
    pub(super) fn number(&self) -> Number {
        match self {
            Self::List(_) => self.only_item().map_or(Number::None, |item| item.number()),
            Self::Int(n) => Number::Int(*n),
            Self::Big(_) => Number::TooLarge,
            Self::Float(x) => integral(*x),
            Self::Text(text) => {
                let text = text.trim();
                if let Ok(n) = text.parse::<i64>() {
                    return Number::Int(n);
                }
                match text.parse::<f64>() {
                    Ok(x) => integral(x),
                    Err(_) => Number::None,
                }
            }
            _ => Number::None,
        }
    }

    /// The number as a double, also where it comes as text or as the one item of a list.
    pub(super) fn double(&self) -> Option<f64> {
        match self {
            Self::List(_) => self.only_item()?.double(),
            Self::Int(n) => Some(*n as f64),
            Self::Float(x) => Some(*x),
            Self::Big(text) | Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// The item of a list of one, where that is no list or map itself.
    fn only_item(&self) -> Option<Value<'a>> {
        match self {
            Self::List(raw) if raw.len == 1 => self.elements().next().filter(|item| !item.is_container()),
            _ => None,
        }
    }

    /// Whether it was sent as a number, and not as text or a list that may be read as one.
    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Float(_) | Self::Big(_))
    }

    /// Whether it is text of white space only.
    pub(super) fn is_blank(&self) -> bool {
        matches!(self, Self::Text(text) if text.trim().is_empty())
    }

    /// Text, also of a number; `None` for what is neither, and for blank text.
    pub(super) fn text(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) if !text.trim().is_empty() => Some(text.clone()),
            Self::Big(text) => Some(text.clone()),
            Self::Int(n) => Some(Cow::Owned(n.to_string())),
            Self::Float(x) => Some(Cow::Owned(format!("{x:?}"))),
            _ => None,
        }
    }

    /// Whether it is a list or a map.
    pub(super) fn is_container(&self) -> bool {
        matches!(self, Self::List(_) | Self::Map(_))
    }

    /// The entries of a map; none of anything else.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Cow<'a, str>, Value<'a>)> + use<'a> {
        let mut items = match self {
            Self::Map(raw) => Some(Items::of(raw)),
            _ => None,
        };
        std::iter::from_fn(move || {
            let items = items.as_mut()?;
            let key = items.key()?;
            Some((key, items.value()))
        })
    }

    /// The elements of a list; none of anything else.
    pub(super) fn elements(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut items = match self {
            Self::List(raw) => Some(Items::of(raw)),
            _ => None,
        };
        std::iter::from_fn(move || {
            let items = items.as_mut()?;
            items.more().then(|| items.value())
        })
    }

    /// The value of a map's last entry of that name.
    pub(super) fn get(&self, name: &str) -> Option<Value<'a>> {
        self.entries().filter(|(key, value)| key == name && *value != Value::Null).last().map(|(_, value)| value)
    }

    /// Appends it as JSON that every reader takes: non-finite numbers become strings.
    pub(super) fn write_json<W: fmt::Write + ?Sized>(&self, out: &mut W) {
        match self {
            Self::Null => put(out, "null"),
            Self::Bool(true) => put(out, "true"),
            Self::Bool(false) => put(out, "false"),
            Self::Int(n) => write_display(out, n),
            Self::Big(text) => put(out, text),
            Self::Float(x) => write_double(out, *x),
            Self::Text(text) => write_text(out, text),
            Self::Time(micros) => {
                put(out, "\"");
                time::write(out, *micros);
                put(out, "\"");
            }
            Self::Bytes(kind, bytes) => write_bytes(out, *kind, bytes),
            Self::List(raw) | Self::Map(raw) => raw.write_json(out),
        }
    }

    /// How long its JSON is.
    pub(super) fn json_bytes(&self) -> usize {
        let mut count = ByteCounter::default();
        self.write_json(&mut count);
        count.0
    }

    /// See [`write_json`](Self::write_json).
    pub(super) fn to_json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out);
        out
    }
}

impl Raw<'_> {
    /// Appends it as JSON that every reader takes.
    pub(super) fn write_json<W: fmt::Write + ?Sized>(&self, out: &mut W) {
        match self.encoded {
            Encoded::Json(text) => json::transcode(text, out),
            Encoded::Pack(bytes) => pack::transcode(bytes, out),
        }
    }
}

fn integral(x: f64) -> Number {
    // 2^63 is exact as a double; everything below it in size converts without loss of the integer part.
    if x.fract() != 0.0 || !x.is_finite() {
        Number::Float(x)
    } else if x.abs() < 9_223_372_036_854_775_808.0 {
        Number::Int(x as i64)
    } else {
        Number::TooLarge
    }
}

/// Appends text to a string, or to what only counts: neither can fail.
pub(super) fn put<W: fmt::Write + ?Sized>(out: &mut W, text: &str) {
    let _ = out.write_str(text);
}

fn write_display<W: fmt::Write + ?Sized>(out: &mut W, value: impl fmt::Display) {
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
fn write_bytes<W: fmt::Write + ?Sized>(out: &mut W, kind: Option<i8>, bytes: &[u8]) {
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

/// Walks the items of one list or map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Items<'a> {
    encoded: Encoded<'a>,
    at: usize,
    /// Items still to come; only MessagePack says how many.
    left: usize,
}

impl<'a> Items<'a> {
    /// Before the first item of `raw`.
    pub(super) fn of(raw: &Raw<'a>) -> Self {
        Self::at(raw.encoded, 0)
    }

    /// Before the first item of the container that opens at `at`.
    fn at(source: Encoded<'a>, at: usize) -> Self {
        match source {
            Encoded::Json(_) => Self { encoded: source, at: at + 1, left: 0 },
            Encoded::Pack(bytes) => {
                let (left, at) = pack::open(bytes, at).unwrap_or((0, bytes.len()));
                Self { encoded: source, at, left }
            }
        }
    }

    /// Steps to the next element of a list; false: there is none.
    pub(super) fn more(&mut self) -> bool {
        match self.encoded {
            Encoded::Json(text) => json::step(text, &mut self.at),
            Encoded::Pack(_) => {
                let more = self.left > 0;
                self.left = self.left.saturating_sub(1);
                more
            }
        }
    }

    /// Steps to the next entry of a map and reads its key.
    pub(super) fn key(&mut self) -> Option<Cow<'a, str>> {
        if !self.more() {
            return None;
        }
        match self.encoded {
            Encoded::Json(text) => {
                let (key, at) = json::read_text(text, self.at)?;
                self.at = json::after_colon(text, at);
                Some(key)
            }
            Encoded::Pack(bytes) => {
                let (key, at) = pack::read(bytes, self.at)?;
                self.at = at;
                Some(pack::key_text(key))
            }
        }
    }

    /// Reads the value stepped to.
    pub(super) fn value(&mut self) -> Value<'a> {
        let read = match self.encoded {
            Encoded::Json(text) => json::read(text, self.at),
            Encoded::Pack(bytes) => pack::read(bytes, self.at),
        };
        let Some((value, at)) = read else {
            // Cannot happen in a checked message; ends every walk.
            *self = Self { encoded: Encoded::Pack(&[]), at: 0, left: 0 };
            return Value::Null;
        };
        self.at = at;
        value
    }

    /// Where the value stepped to is a map: a walk through it, to be handed back to [`leave`](Self::leave) at its end.
    pub(super) fn enter(&self) -> Option<Self> {
        let map = match self.encoded {
            Encoded::Json(text) => text.as_bytes().get(self.at) == Some(&b'{'),
            Encoded::Pack(bytes) => pack::is_map(bytes, self.at),
        };
        map.then(|| Self::at(self.encoded, self.at))
    }

    /// Goes on behind the map that `inner` has walked to its end; returns its span.
    pub(super) fn leave(&mut self, inner: &Self) -> Encoded<'a> {
        let (from, to) = (self.at, inner.at);
        self.at = to;
        match self.encoded {
            Encoded::Json(text) => Encoded::Json(text.get(from..to).unwrap_or("{}")),
            Encoded::Pack(bytes) => Encoded::Pack(bytes.get(from..to).unwrap_or(&[0x80])),
        }
    }
}
