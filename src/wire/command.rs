//! Control messages: a bare word (also as a JSON text), or a map with a `command` at its top or in its `data`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Limits, not_an_object, open,
    rejection::invalid,
    rest_json::root_json,
    too_large, trim,
    value::{Raw, Value},
    write::write_text,
};
use crate::{
    event::{ControlRow, Guard, event_id},
    frame::{Reason, Rejection},
    units::{self, Micros},
};

/// A command, for this or another instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// What to do.
    pub command: String,
    /// The sender's name for it; echoed.
    pub id: Option<String>,
    /// The instance that executes it; absent: every instance.
    pub target: Option<String>,
    /// How long to wait, where the command waits.
    pub timeout: Option<Duration>,
    /// Its `params`, as JSON.
    pub params_json: Option<String>,
    /// The whole message, as JSON.
    pub payload_json: String,
}

impl Command {
    /// The row of the command, as written at receipt. Its outcome is written later, under the same key.
    pub fn row(&self, channel: &str, payload: &[u8], received_at: Micros, instance: &str) -> ControlRow {
        ControlRow {
            timestamp: received_at,
            event_id: event_id(received_at, channel, payload),
            instance: instance.to_owned(),
            command: self.command.clone(),
            command_id: self.id.clone(),
            target: self.target.clone(),
            source: channel.to_owned(),
            outcome: None,
            payload_json: self.payload_json.clone(),
        }
    }
}

/// A command with the message it came in.
#[derive(Clone, Debug)]
pub struct ReceivedCommand {
    /// What to do.
    pub command: Command,
    /// Where it came from.
    pub channel: Arc<str>,
    /// The message as received: with time and channel the key of its row.
    pub payload: Bytes,
    /// When it was received.
    pub received_at: Micros,
    /// Memory that is reserved for it until it is executed.
    pub reserved: Option<Guard>,
}

/// A bare word is at most this long.
const BARE_WORD_BYTES_MAX: usize = 64;

/// Reads a message of a control channel.
///
/// # Errors
/// The contract's reason why these bytes are no command.
pub fn decode_control(payload: &[u8], limits: &Limits) -> Result<Command, Rejection> {
    if let Some(word) = bare_word(payload) {
        let mut payload_json = String::with_capacity(word.len() + 2);
        write_text(&mut payload_json, word);
        let command = word.to_owned();
        return Ok(Command { command, id: None, target: None, timeout: None, params_json: None, payload_json });
    }
    if payload.len() > limits.command.as_usize() {
        let detail =
            format!("a command of {} bytes; the limit is {} (`limits.command`)", payload.len(), limits.command);
        return Err(too_large(detail));
    }
    if trim(payload).first().is_some_and(u8::is_ascii_alphabetic) {
        return Err(not_an_object("is neither a map nor a bare word"));
    }
    let (root, checked) = open(payload, limits)?;
    limits.check_string_length(checked.longest)?;
    let top = Value::Map(Raw { encoded: root, len: 0 });
    let data = top.get("data");
    let field = |name: &str| data.as_ref().and_then(|data| data.get(name)).or_else(|| top.get(name));
    let command = match field("command") {
        Some(Value::Text(command)) if !command.trim().is_empty() => command.trim().to_owned(),
        Some(value) => return Err(invalid("command", &value)),
        None => return Err(Rejection { reason: Reason::UnknownShape, detail: "no `command`".into() }),
    };
    let text = |name: &str| match field(name) {
        None => Ok(None),
        Some(value) if value.is_container() => Err(invalid(name, &value)),
        Some(value) => Ok(value.text().map(|text| text.into_owned())),
    };
    let params = field("params");
    let timeout = match params.as_ref().and_then(|params| params.get("timeout")).or_else(|| field("timeout")) {
        None => None,
        Some(value) => Some(timeout(&value).ok_or_else(|| invalid("timeout", &value))?),
    };
    Ok(Command {
        command,
        id: text("id")?,
        target: text("target")?,
        timeout,
        params_json: params.map(|params| params.to_json()),
        payload_json: root_json(root, checked.is_strict_json),
    })
}

fn bare_word(payload: &[u8]) -> Option<&str> {
    let word = trim(payload).trim_ascii_end();
    // What `json.dumps("pause")` writes. A word needs no escapes.
    let word = match word {
        [b'"', inner @ .., b'"'] => inner,
        word => word,
    };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':');
    let whole =
        (1..=BARE_WORD_BYTES_MAX).contains(&word.len()) && word[0].is_ascii_alphabetic() && word.iter().all(plain);
    std::str::from_utf8(word).ok().filter(|_| whole)
}

/// Seconds, or text with a unit.
fn timeout(value: &Value<'_>) -> Option<Duration> {
    if let Value::Text(text) = value
        && let Ok(duration) = units::parse_duration(text)
    {
        return Some(duration);
    }
    Duration::try_from_secs_f64(value.double()?).ok()
}
