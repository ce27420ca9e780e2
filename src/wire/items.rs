//! Walks lists and maps of either encoding, and what needs a walk: numbers in lists of one, entries, JSON text.
//!
//! Spans come from a message that was checked whole, so a walk cannot fail; where it meets what a check would have refused, it ends.

use std::{borrow::Cow, fmt};

use super::{
    json, pack,
    value::{Encoded, Number, Raw, Value},
    write::ByteCounter,
};

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
            Self::List(raw) | Self::Map(raw) => raw.write_json(out),
            scalar => scalar.write_scalar(out),
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
