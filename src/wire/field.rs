//! One field of a message, and what holds its value.

use std::borrow::Cow;

use super::{names::Section, value::Value};

/// One field of the message or of a map inside it that is looked into.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    pub(super) section: Section,
    /// Levels of nesting.
    pub(super) depth: u8,
    pub(super) key: Cow<'a, str>,
    pub(super) value: Value<'a>,
    pub(super) destination: Destination,
}

/// What holds the value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// No column: `extra`, or `rest_json`.
    NoColumn,
    /// A column.
    Column,
    /// A column holds the whole part of the number, `extra` the number.
    WholePart,
    /// No column: its column cannot take the value, which `rest_json` keeps.
    Invalid,
}
