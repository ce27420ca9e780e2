//! The JSON of a latest value.

use tracing::debug;

use crate::{event::Resolved, wire};

/// Makes the JSON of a latest value.
pub trait Render: Send + Sync {
    /// Appends the object to `out`; nothing when the message cannot be read. `canonical_only` leaves out the other fields.
    fn render(&self, payload: &[u8], decided: &Resolved, canonical_only: bool, out: &mut String);

    /// Approximate length of the text of all fields.
    fn text_bytes(&self, payload: &[u8]) -> usize;
}

/// Renders the message that intake accepted.
pub struct MessageRenderer {
    instance: String,
}

impl MessageRenderer {
    /// For the keys of this instance.
    pub fn new(instance: &str) -> Self {
        Self { instance: instance.to_owned() }
    }
}

impl Render for MessageRenderer {
    fn text_bytes(&self, payload: &[u8]) -> usize {
        wire::text_bytes(payload)
    }

    fn render(&self, payload: &[u8], decided: &Resolved, canonical_only: bool, out: &mut String) {
        match wire::decode_accepted(payload) {
            Ok(message) if canonical_only => wire::latest_json_canonical(&message, decided, &self.instance, out),
            Ok(message) => wire::latest_json(&message, decided, &self.instance, out),
            Err(rejection) => debug!(%rejection, "an accepted message cannot be rendered"),
        }
    }
}
