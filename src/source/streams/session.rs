//! The two connections of a stream, and how reading over them ends.

use super::commands::{Commands, Trouble};
use crate::{redis::Connected, source::queue::Closed};

/// The two connections of a stream, and the commands over each.
pub(super) struct Session {
    pub(super) reader: Connected,
    pub(super) writer: Connected,
    pub(super) reading: Commands,
    pub(super) writing: Commands,
}

/// How a session ended.
pub(super) enum End {
    /// Told to stop, or intake has ended.
    Stopped,
    /// This is wrong.
    Trouble(Trouble),
}

impl From<Closed> for End {
    fn from(_: Closed) -> Self {
        Self::Stopped
    }
}

impl From<Trouble> for End {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}
