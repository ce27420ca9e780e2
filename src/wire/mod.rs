//! JSON and MessagePack messages to typed events; reasons of rejection.
//!
//! Every message goes through the same steps: its size; its encoding by the first byte; one pass over all of it that knows its
//! limits and builds nothing ([`json`], [`pack`]); its fields, flat, as borrowed values ([`value`], [`nested`]); which of them mean
//! which column ([`names`], [`assign`], [`columns`]); how a run ended ([`outcome`]). What follows cannot fail: rows for the store
//! ([`rows()`]) and the objects of the latest-state keys ([`latest_json`]).
//!
//! No field is dropped: a field without a column goes to `extra` or `rest_json`, or its payload is kept whole. The exceptions lose
//! no information: the `type` of metrics (the table implies it), the own time where it is the time of the row, and `null`.

mod assign;
mod command;
mod dataset;
mod field;
mod items;
mod json;
mod latest_json;
mod message;
mod names;
mod nested;
mod network;
mod outcome;
mod pack;
mod rejection;
mod rest_json;
mod rows;
mod run_update;
mod split;
mod status_words;
mod time;
mod topology;
mod typed_columns;
mod value;
mod write;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::{
    command::{Command, ReceivedCommand, decode_control},
    latest_json::{append_stored, latest_json, latest_json_canonical},
    message::{Message, MessageTime},
    names::{FieldUse, config_names, field_use, run_end_names, run_start_names},
    network::{Network, configured, network},
    outcome::Outcome,
    rows::{Rows, rows},
    run_update::{RUN_UPDATE, TAGS_BYTES_MAX, TAGS_MAX, set_finals},
    split::split,
    time::parse as parse_time,
    write::write_time,
};
use self::{
    message::Strictness,
    names::FieldId,
    value::{Encoded, Raw},
    write::ByteCounter,
};
use crate::{
    event::Kind,
    frame::{Reason, Rejection},
    section::{self, require},
    units::ByteSize,
};

/// What a message may be at most; checked before decoding.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Size of a message; larger ones are dead letters of which the first 64 KiB are kept.
    pub message: ByteSize,
    /// Depth of nesting.
    pub depth: usize,
    /// Fields in one map.
    pub fields: usize,
    /// Values in a message, lists and maps and what they hold.
    pub elements: usize,
    /// Length of one string outside a topology.
    pub string: ByteSize,
    /// Size of a command.
    pub command: ByteSize,
    /// The JSON text that a message is stored as: MessagePack may become six times as long.
    pub text: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        section::defaults("limits")
    }
}

impl Limits {
    /// Adds what is wrong with these settings.
    pub fn problems(&self, problems: &mut Vec<String>) {
        require(
            problems,
            self.message <= ByteSize::mib(32),
            "`limits.message` is above 32MiB, where Redis cuts the connection of a subscriber",
        );
        for (key, is_zero) in [
            ("message", self.message.0 == 0),
            ("depth", self.depth == 0),
            ("fields", self.fields == 0),
            ("elements", self.elements == 0),
            ("command", self.command.0 == 0),
            ("text", self.text.0 == 0),
            ("string", self.string.0 == 0),
        ] {
            require(problems, !is_zero, format!("`limits.{key}` must be above zero"));
        }
    }

    /// For what was accepted under the limits of its day.
    pub const NONE: Self = Self {
        message: ByteSize::gib(1),
        depth: usize::MAX,
        fields: usize::MAX,
        elements: usize::MAX,
        string: ByteSize::gib(1),
        command: ByteSize::gib(1),
        text: ByteSize::gib(8),
    };

    fn too_deep(depth: usize) -> Rejection {
        Rejection { reason: Reason::TooDeep, detail: format!("nested deeper than {depth}; see `limits.depth`") }
    }

    fn too_many_fields(fields: usize) -> Rejection {
        too_large(format!("a map with more than {fields} fields; see `limits.fields`"))
    }

    fn too_many_elements(elements: usize) -> Rejection {
        too_large(format!("more than {elements} values; see `limits.elements`"))
    }

    /// Counts the JSON text of a message, without making it, where it may be beyond the limit.
    fn check_text_size(&self, root: Encoded<'_>) -> Result<(), Rejection> {
        let most = match root {
            Encoded::Json(text) => text.len() * JSON_GROWTH,
            Encoded::Pack(bytes) => bytes.len() * PACK_GROWTH,
        };
        if most <= self.text.as_usize() {
            return Ok(());
        }
        let text = json_bytes(root);
        if text <= self.text.as_usize() {
            return Ok(());
        }
        Err(too_large(format!("its JSON text has {text} bytes; the limit is {} (`limits.text`)", self.text)))
    }

    fn check_string_length(&self, longest: usize) -> Result<(), Rejection> {
        if longest <= self.string.as_usize() {
            return Ok(());
        }
        Err(too_large(format!("a string of {longest} bytes; the limit is {} (`limits.string`)", self.string)))
    }
}

/// How many times as long JSON may become when it is written for every reader, at most: `NaN` becomes `"NaN"`.
const JSON_GROWTH: usize = 2;
/// The same of MessagePack: a control character in a text is one byte, and `\u0001` in JSON.
const PACK_GROWTH: usize = 6;

/// How long the JSON text of a message is; it is counted, not made. Zero for bytes that are no message.
pub fn text_bytes(payload: &[u8]) -> usize {
    encoding(payload).map_or(0, json_bytes)
}

fn json_bytes(root: Encoded<'_>) -> usize {
    let mut count = ByteCounter::default();
    Raw { encoded: root, len: 0 }.write_json(&mut count);
    count.0
}

/// Reads a training message.
///
/// # Errors
/// The contract's reason why these bytes are none.
pub fn decode<'a>(payload: &'a [u8], limits: &Limits) -> Result<Message<'a>, Rejection> {
    let (root, checked) = open(payload, limits)?;
    limits.check_text_size(root)?;
    let mut message = Message::parse(root, Strictness::Received)?;
    message.is_strict_json = Some(checked.is_strict_json);
    if message.kind() == Kind::Dataset {
        dataset::check(&message)?;
    }
    // Topologies say what they like at length, but for the name of their run, which its row has; everywhere else a long string is an
    // accident or an attack.
    limits.check_string_length(match message.kind() {
        Kind::Topology => message.run_name().map_or(0, str::len),
        _ => checked.longest,
    })?;
    Ok(message)
}

/// Reads a message that [`decode`] has accepted before, under whatever limits, without checking it again: half the work. Bytes
/// that were never accepted give some message or an error, nothing worse.
///
/// # Errors
/// As [`decode`].
pub fn decode_accepted(payload: &[u8]) -> Result<Message<'_>, Rejection> {
    Message::parse(encoding(payload)?, Strictness::Accepted)
}

/// The `seq` of a message that was accepted, or of the part of it that a row holds; by the rules of [`decode`], but for the kind.
pub fn seq(payload: &[u8]) -> Option<i64> {
    Message::parse_fields(encoding(payload).ok()?).counter_column(FieldId::Seq)
}

/// Whether an event of this type is the start of a run.
pub fn is_run_start(type_name: &str) -> bool {
    names::kind(type_name) == Kind::RunStart
}

/// The map that a message is, checked whole.
fn open<'a>(payload: &'a [u8], limits: &Limits) -> Result<(Encoded<'a>, json::Checked), Rejection> {
    if payload.len() > limits.message.as_usize() {
        return Err(too_large(format!("{} bytes; the limit is {} (`limits.message`)", payload.len(), limits.message)));
    }
    let root = encoding(payload)?;
    let checked = match root {
        Encoded::Json(text) => json::check(text, limits)?,
        Encoded::Pack(body) => json::Checked { longest: pack::check(body, limits)?, is_strict_json: false },
    };
    Ok((root, checked))
}

/// The map that a message is, by its first byte.
fn encoding(payload: &[u8]) -> Result<Encoded<'_>, Rejection> {
    let body = trim(payload);
    match body.first() {
        Some(b'{') => {
            let text = std::str::from_utf8(body).map_err(|error| Rejection {
                reason: Reason::MalformedJson,
                detail: format!("no UTF-8 at byte {}", error.valid_up_to()),
            })?;
            Ok(Encoded::Json(text.trim_end_matches([' ', '\t', '\n', '\r'])))
        }
        Some(0x80..=0x8f | 0xde | 0xdf) => Ok(Encoded::Pack(body)),
        Some(byte) => {
            let begin =
                if byte.is_ascii_graphic() { format!("`{}`", char::from(*byte)) } else { format!("byte 0x{byte:02x}") };
            Err(not_an_object(&format!("begins with {begin}; a message is a JSON object or a MessagePack map")))
        }
        None => Err(not_an_object("is empty")),
    }
}

fn too_large(detail: String) -> Rejection {
    Rejection { reason: Reason::TooLarge, detail }
}

fn not_an_object(detail: &str) -> Rejection {
    Rejection { reason: Reason::NotAnObject, detail: detail.into() }
}

/// The payload without the white space and byte-order mark in front.
fn trim(payload: &[u8]) -> &[u8] {
    let space = |bytes: &[u8]| json::skip_space(bytes, 0);
    let body = &payload[space(payload)..];
    match body.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => &rest[space(rest)..],
        None => body,
    }
}

/// The beginning of `text`, at most `bytes` long.
fn prefix(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
