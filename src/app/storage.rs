//! What is on disk, as several parts see it.

use std::sync::Arc;

use crate::{dead_letter::DeadLetterLog, spool};

/// Spool and dead letters.
#[derive(Clone)]
pub(super) struct Storage {
    pub(super) spool: spool::View,
    pub(super) dead_letters: Arc<DeadLetterLog>,
}
