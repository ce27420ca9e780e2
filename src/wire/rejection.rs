//! Why a message with a field of the wrong type is rejected.

use super::value::{Encoded, Value};
use crate::frame::{Reason, Rejection};

/// `invalid_field`, with the field's name and value, cut to 200 bytes.
pub(super) fn invalid(name: &str, value: &Value<'_>) -> Rejection {
    let mut detail = format!("{}: ", super::prefix(name, 100));
    match value {
        // A container may be megabytes; its beginning is enough.
        Value::List(raw) | Value::Map(raw) => match raw.encoded {
            Encoded::Json(text) => detail.push_str(super::prefix(text, 200)),
            Encoded::Pack(_) => detail.push_str("a list or map"),
        },
        Value::Text(text) => {
            detail.push('"');
            detail.push_str(super::prefix(text, 200));
            detail.push('"');
        }
        scalar => scalar.write_json(&mut detail),
    }
    detail.truncate(super::prefix(&detail, 200).len());
    Rejection { reason: Reason::InvalidField, detail }
}
