//! How a run ended: which field of a run end decides. The first field with a value decides; blank text is no value. An unknown word
//! is never success.

use super::{
    message::Message,
    names::{FieldId, Section},
    status_words::{is_ambiguous, lookup, named_by_type, normalised, words},
    value::{Number, Value},
};
use crate::event::status;

/// Consecutive words of a reason that are joined at most: `out of memory` is three.
const WORDS_MAX: usize = 3;

/// The status of an ended run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `completed`, `failed` or `stopped`.
    pub status: &'static str,
    /// Whether the deciding field held a word of the contract's table; an unknown one is `stopped`, and counted.
    pub known: bool,
}

impl Outcome {
    const UNKNOWN: Self = Self { status: status::STOPPED, known: false };

    fn known(status: &'static str) -> Self {
        Self { status, known: true }
    }

    fn from_bool(value: bool) -> Self {
        Self::known(if value { status::COMPLETED } else { status::FAILED })
    }
}

impl Message<'_> {
    /// How the run ended, of a run end.
    pub fn outcome(&self) -> Outcome {
        let is_failure = |name: &&str| self.non_blank_values(name).any(|(section, value)| is_error(section, value));
        of_status(self)
            .or_else(|| self.non_blank_values("success").find_map(|(section, value)| of_success(section, value)))
            .or_else(|| ["error", "exception"].iter().any(is_failure).then(|| Outcome::known(status::FAILED)))
            .or_else(|| self.non_blank_values("exit_code").map(|(_, value)| of_exit_code(value)).next())
            .or_else(|| self.non_blank_values("reason").find_map(|(_, value)| of_reason(value)))
            .unwrap_or_else(|| Outcome::known(named_by_type(self.type_name()).unwrap_or(status::COMPLETED)))
    }
}

fn of_status(message: &Message<'_>) -> Option<Outcome> {
    Some(match message.get(FieldId::Status)? {
        Value::Bool(value) => Outcome::from_bool(*value),
        Value::Text(text) => lookup(&normalised(text)).map_or(Outcome::UNKNOWN, Outcome::known),
        _ => Outcome::UNKNOWN,
    })
}

/// A truth value, also as text or as 1 and 0. Numbers among metrics are a rate of success, and decide nothing.
fn of_success(section: Section, value: &Value<'_>) -> Option<Outcome> {
    match (value, value.number()) {
        (Value::Bool(value), _) => Some(Outcome::from_bool(*value)),
        (value, _) if value.is_number() && section == Section::Metrics => None,
        (_, Number::Int(number @ (0 | 1))) => Some(Outcome::from_bool(number == 1)),
        (Value::Text(text), _) => match normalised(text).as_str() {
            "true" => Some(Outcome::from_bool(true)),
            "false" => Some(Outcome::from_bool(false)),
            _ => Some(Outcome::UNKNOWN),
        },
        _ => Some(Outcome::UNKNOWN),
    }
}

/// Whether this is an error: anything but `false`, zero and what is empty. A number among metrics measures an error.
fn is_error(section: Section, value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Int(_) | Value::Float(_) | Value::Big(_) => section != Section::Metrics && value.double() != Some(0.0),
        Value::List(raw) | Value::Map(raw) => raw.len > 0,
        Value::Bytes(_, bytes) => !bytes.is_empty(),
        Value::Text(_) | Value::Time(_) | Value::Bool(true) => true,
    }
}

/// 0 is success; of Slurm's `n:m` (exit code and signal) both must be 0.
fn of_exit_code(value: &Value<'_>) -> Outcome {
    let is_zero = match value {
        Value::Text(text) if text.contains(':') => {
            text.split(':').all(|part| part.trim().parse::<i64>().is_ok_and(|code| code == 0))
        }
        value => value.number() == Number::Int(0),
    };
    Outcome::from_bool(is_zero)
}

/// The whole of a reason may be a word of the table; else consecutive words of it may be one that means failure, unless `no`,
/// `without` or `0` stands directly before them.
fn of_reason(value: &Value<'_>) -> Option<Outcome> {
    let Value::Text(text) = value else { return None };
    if let Some(status) = lookup(&normalised(text)) {
        return Some(Outcome::known(status));
    }
    let words = words(text);
    let mut from = 0;
    while from < words.len() {
        let longest = (1..=WORDS_MAX.min(words.len() - from)).rev().find(|count| {
            let word = words[from..from + count].concat();
            lookup(&word) == Some(status::FAILED) && !is_ambiguous(&word)
        });
        let negated = from > 0 && matches!(words[from - 1].as_str(), "no" | "without" | "0");
        match longest {
            Some(_) if !negated => return Some(Outcome::known(status::FAILED)),
            count => from += count.unwrap_or(1),
        }
    }
    None
}
