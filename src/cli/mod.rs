//! The command line: one file a subcommand.

pub mod lookup;
pub mod metrics;
pub mod runs;
pub mod show;
pub mod table;

use crate::store::BoxError;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The arguments do not fit together.
    #[error("{0}")]
    Usage(String),
    /// It was tried, and failed.
    #[error("{what}")]
    Failed {
        /// The operation.
        what: String,
        /// Its cause.
        #[source]
        error: BoxError,
    },
    /// It worked, and the answer is no.
    #[error("{0}")]
    No(String),
}

impl CliError {
    /// An operation and why it failed.
    pub fn failed(what: impl Into<String>, error: impl Into<BoxError>) -> Self {
        Self::Failed { what: what.into(), error: error.into() }
    }
}
