//! The two connections of a stream, and how reading over them ends.

use super::commands::{Commands, StreamError};
use crate::{redis::Connected, source::queue::Closed};

/// The two connections of a stream, and the commands over each.
pub(super) struct Session {
    pub(super) reader: Connected,
    pub(super) writer: Connected,
    pub(super) reading: Commands,
    pub(super) writing: Commands,
    /// The number of the first connection at the server; absent: unknown.
    pub(super) reader_id: Option<u64>,
}

/// How a session ended.
pub(super) enum End {
    /// Told to stop, or intake has ended.
    Stopped,
    /// This is wrong.
    Failed(StreamError),
}

impl From<Closed> for End {
    fn from(_: Closed) -> Self {
        Self::Stopped
    }
}

impl From<StreamError> for End {
    fn from(error: StreamError) -> Self {
        Self::Failed(error)
    }
}
