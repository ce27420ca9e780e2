//! The text of a server-sent event.

use std::fmt::Write as _;

/// Appends an event. `json` has no line break, which would end the data.
pub fn event(out: &mut String, name: &str, json: &str, id: Option<&str>) {
    if let Some(id) = id {
        let _ = writeln!(out, "id: {id}");
    }
    let _ = write!(out, "event: {name}\ndata: {json}\n\n");
}
