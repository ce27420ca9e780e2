//! Why the daemon could not start, or ended.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{access, dead_letter::DeadLetterError, spool::SpoolError};

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
    #[error(
        "process {holder} uses `{}`: a daemon already runs here; stop it, or give this one its own --state-dir and --instance",
        .spool.display()
    )]
    AlreadyRuns { spool: PathBuf, holder: String },
    #[error("{user} may not write `{}`; choose another directory with --state-dir, or give this one to that user (chown)", .path.display())]
    NotWritable { path: PathBuf, user: String },
    #[error("failed to open the spool")]
    Spool(#[source] SpoolError),
    #[error("failed to open the dead letters")]
    DeadLetters(#[source] DeadLetterError),
    #[error("failed to start")]
    Start(#[source] io::Error),
    #[error("{0}")]
    Ended(String),
}

impl AppError {
    /// Why there is no state directory.
    pub(super) fn state_dir(path: &Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::not_writable(path),
            _ => Self::StateDir { path: path.to_owned(), error },
        }
    }

    /// Why there is no spool.
    pub(super) fn spool(error: SpoolError) -> Self {
        let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        match error {
            SpoolError::Locked { dir: spool, holder } => Self::AlreadyRuns { spool, holder },
            SpoolError::CreateDir { dir: path, error } | SpoolError::Lock { path, error } if is_denied(&error) => {
                Self::not_writable(&path)
            }
            other => Self::Spool(other),
        }
    }

    fn not_writable(path: &Path) -> Self {
        Self::NotWritable { path: path.to_owned(), user: access::user_name(rustix::process::geteuid().as_raw()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_daemon_from_its_directories_is_said_with_the_way_out() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let dir = PathBuf::from("/x/spool");
        let text = AppError::spool(SpoolError::Locked { dir: dir.clone(), holder: "7".into() }).to_string();
        assert!(text.starts_with("process 7 uses `/x/spool`: a daemon already runs here; stop it"), "{text}");
        for error in [
            AppError::state_dir(&dir, denied()),
            AppError::spool(SpoolError::CreateDir { dir: dir.clone(), error: denied() }),
            AppError::spool(SpoolError::Lock { path: dir.clone(), error: denied() }),
        ] {
            let text = error.to_string();
            assert!(text.contains("may not write `/x/spool`; choose another directory with --state-dir"), "{text}");
        }
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(AppError::spool(SpoolError::CreateDir { dir, error: full }), AppError::Spool(_)));
    }
}
