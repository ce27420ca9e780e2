//! Why a store accepts no rows: a description, and the remedy.

use std::error::Error;

use super::{BoxError, StoreError};
use crate::{logging::Chain, units::Micros};

/// Why rows are held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is held back: `rows`, `runs` (their rows), `dead letters`, or everything (`store`); in a read-only process: `reads`.
    pub holds: &'static str,
    /// Start of the outage.
    pub since: Micros,
    /// True if it needs manual repair; false if it is retried until it passes.
    pub needs_attention: bool,
    /// Description of the failure.
    pub reason: String,
    /// The command or setting that repairs it, if known.
    pub remedy: Option<String>,
}

impl Problem {
    /// The problem that a failed call describes.
    pub fn of(holds: &'static str, error: &StoreError, since: Micros) -> Self {
        let (needs_attention, cause) = match error {
            StoreError::Unavailable(cause) => (false, cause),
            StoreError::Misconfigured(cause) | StoreError::Rejected(cause) => (true, cause),
        };
        let reason = Chain(&**cause).to_string();
        Self { holds, since, needs_attention, reason, remedy: remedy(&**cause).map(str::to_owned) }
    }
}

/// An error cause with a known remedy.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct ErrorWithRemedy {
    /// The problem, or an instruction.
    pub(crate) what: String,
    /// The command or setting that repairs it.
    pub(crate) remedy: String,
    #[source]
    pub(crate) error: Option<BoxError>,
}

/// The remedy given by the error or by one of its causes.
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
