//! A borrowed view of a decoded value, in either encoding.
//!
//! Scalars are read; lists and maps stay spans of bytes until [`Items`](super::items::Items) walks them, so that a large message
//! costs no more memory than its own bytes.

use std::{borrow::Cow, fmt};

use super::write::{put, write_bytes, write_display, write_double, write_moment, write_text};
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

    /// Appends a scalar as JSON that every reader takes: non-finite numbers become strings. A list or a map is appended as `null`.
    pub(super) fn write_scalar<W: fmt::Write + ?Sized>(&self, out: &mut W) {
        match self {
            Self::Null | Self::List(_) | Self::Map(_) => put(out, "null"),
            Self::Bool(true) => put(out, "true"),
            Self::Bool(false) => put(out, "false"),
            Self::Int(n) => write_display(out, n),
            Self::Big(text) => put(out, text),
            Self::Float(x) => write_double(out, *x),
            Self::Text(text) => write_text(out, text),
            Self::Time(micros) => write_moment(out, *micros),
            Self::Bytes(kind, bytes) => write_bytes(out, *kind, bytes),
        }
    }

    /// Whether a double says all that this number says.
    pub(super) fn is_exact(&self, x: f64) -> bool {
        match (self, self.number()) {
            (Self::Float(_), _) | (_, Number::Float(_)) => true,
            (_, Number::Int(n)) => n.unsigned_abs() <= 1 << 53 || (x as i64 == n && x < 9.2e18),
            _ => false,
        }
    }
}
