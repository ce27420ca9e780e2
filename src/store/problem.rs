//! What keeps a store from taking rows, in words for people, and the command that mends it.

use std::error::Error;

use super::{BoxError, StoreError};
use crate::{logging::Chain, units::Micros};

/// Why rows are held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What waits because of it: `rows`, `runs` (their rows), `dead letters`, or everything (`store`); of a process that only reads:
    /// `reads`.
    pub holds: &'static str,
    /// Since when.
    pub since: Micros,
    /// Whether it stays until a person mends it; else it is tried again until it passes.
    pub needs_attention: bool,
    /// What is wrong.
    pub reason: String,
    /// The command, or the setting, that mends it, where it is known.
    pub remedy: Option<String>,
}

impl Problem {
    /// What a failed call says.
    pub fn of(holds: &'static str, error: &StoreError, since: Micros) -> Self {
        let (needs_attention, cause) = match error {
            StoreError::Unavailable(cause) => (false, cause),
            StoreError::Misconfigured(cause) | StoreError::Rejected(cause) => (true, cause),
        };
        let reason = Chain(&**cause).to_string();
        Self { holds, since, needs_attention, reason, remedy: remedy(&**cause).map(str::to_owned) }
    }
}

/// A cause that knows what mends it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct ErrorWithRemedy {
    /// What is wrong, or what to do about it.
    pub(crate) what: String,
    /// The command, or the setting.
    pub(crate) remedy: String,
    #[source]
    pub(crate) error: Option<BoxError>,
}

/// What the error, or a cause of it, says that mends it.
pub(crate) fn remedy<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e str> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(mendable) = error.downcast_ref::<ErrorWithRemedy>() {
            return Some(&mendable.remedy);
        }
        cause = error.source();
    }
    None
}
