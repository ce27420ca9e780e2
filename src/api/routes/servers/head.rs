//! The head of the answers.

use serde_json::{Map, Value};

use crate::{render, units};

pub const UP: &str = "UP";
pub const DOWN: &str = "DOWN";
pub const UNAVAILABLE: &str = "UNAVAILABLE";
pub const DISABLED: &str = "DISABLED";

/// The members that every answer begins with.
pub fn answer_head(status: &str, message: &str) -> Map<String, Value> {
    let mode = if status == DISABLED { DISABLED } else { "LIVE" };
    let head = [("status", status), ("mode", mode), ("message", message), ("timestamp", &render::time(units::now()))];
    head.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect()
}

/// Removes unknown values: a panel shows a dash for a missing member.
pub fn present(mut object: Value) -> Value {
    if let Some(object) = object.as_object_mut() {
        object.retain(|_, value| !value.is_null());
    }
    object
}
