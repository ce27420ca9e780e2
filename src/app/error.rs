//! Why the daemon could not start, or ended.

use std::{io, path::PathBuf};

use crate::{dead_letter::DeadLetterError, spool::SpoolError};

/// Why the daemon could not start, or ended.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum AppError {
    #[error("failed to create the state directory `{}`", .path.display())]
    StateDir {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("a restore into `{}` was interrupted: run `cascor-ingest restore {backup} --force` again", .state_dir.display())]
    UnfinishedRestore { state_dir: PathBuf, backup: String },
    #[error("failed to open the spool")]
    Spool(#[source] SpoolError),
    #[error("failed to open the dead letters")]
    DeadLetters(#[source] DeadLetterError),
    #[error("failed to start")]
    Start(#[source] io::Error),
    #[error("{0}")]
    Ended(String),
}
