//! Classifies SQLite errors.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use rusqlite::ErrorCode;
use rustix::fs::Access;

use crate::{
    logging::Chain,
    store::{BoxError, ErrorWithRemedy, StoreError, remedy},
};

/// An error that needs manual repair; its text says how.
#[derive(Debug, thiserror::Error)]
pub(super) enum OperatorError {
    #[error("there is no database at `{}`: is `store.sqlite.path` (or `state_dir`) that of the daemon?", .0.display())]
    Missing(PathBuf),
    #[error("`{}` was opened to read; only its daemon writes what is received", .0.display())]
    ReadOnly(PathBuf),
    #[error("this user cannot write `{}`: make the change as the user of the daemon, or let the daemon make it (`--url`)", .0.display())]
    NotEditable(PathBuf),
    #[error("`{}` has schema version {found}, this program knows {known}: {}", .path.display(), version_advice(*found, *known))]
    Version { path: PathBuf, found: i64, known: i64 },
    #[error("`{}` is damaged or not a SQLite database: move it away (a new one is created; `sqlite3 FILE .recover` may save rows of the old one), or set `store.sqlite.path`", .path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        error: rusqlite::Error,
    },
    #[error("`{}` cannot be written: make the file and its folder writable for the user of the daemon", .path.display())]
    NotWritable {
        path: PathBuf,
        #[source]
        error: rusqlite::Error,
    },
    #[error("the tables in `{}` are not those of this program: move the file away, or set `store.sqlite.path`", .path.display())]
    Foreign {
        path: PathBuf,
        #[source]
        error: rusqlite::Error,
    },
    #[error("`{}` cannot be opened: make the file and its folder accessible for the user of the daemon, or set `store.sqlite.path`", .path.display())]
    Inaccessible {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

impl OperatorError {
    /// The repair command for the simplest case.
    fn remedy(&self) -> Option<String> {
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''"));
        let owned = |path: &Path| {
            let user = rustix::process::geteuid().as_raw();
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut names = format!("{}*", quoted(path));
            // The folder only if it is the cause, because other programs may use it.
            if rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).is_err() {
                names = format!("{} {names}", quoted(folder));
            }
            format!("chown {user} {names} && chmod u+rwX {names}")
        };
        // The WAL holds the newest rows: the three files stay together, under their names.
        let moved = |path: &Path| {
            let [file, wal, shm] =
                ["", "-wal", "-shm"].map(|end| quoted(Path::new(&format!("{}{end}", path.display()))));
            let aside = quoted(Path::new(&format!("{}.aside", path.display())));
            format!("mkdir {aside} && for f in {file} {wal} {shm}; do [ ! -e \"$f\" ] || mv \"$f\" {aside}; done")
        };
        match self {
            Self::Missing(_) | Self::ReadOnly(_) | Self::NotEditable(_) | Self::Version { .. } => None,
            Self::Damaged { path, .. } | Self::Foreign { path, .. } => Some(moved(path)),
            Self::NotWritable { path, .. } => Some(owned(path)),
            Self::Inaccessible { path, error } if error.kind() == ErrorKind::PermissionDenied => Some(owned(path)),
            Self::Inaccessible { .. } => Some("set `store.sqlite.path` to another file, and restart".into()),
        }
    }

    fn into_cause(self) -> Option<BoxError> {
        match self {
            Self::Missing(_) | Self::ReadOnly(_) | Self::NotEditable(_) | Self::Version { .. } => None,
            Self::Damaged { error, .. } | Self::Foreign { error, .. } | Self::NotWritable { error, .. } => {
                Some(error.into())
            }
            Self::Inaccessible { error, .. } => Some(error.into()),
        }
    }
}

/// A transient error.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransientError {
    #[error("cannot use `{}` now", .path.display())]
    Database {
        path: PathBuf,
        #[source]
        error: rusqlite::Error,
    },
    #[error("cannot open `{}` now", .path.display())]
    File {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("`{}` was moved or deleted while it was written", .0.display())]
    Replaced(PathBuf),
    #[error("a run was deleted; the rows that are still to be written must be chosen again")]
    RunDeleted,
    #[error("too many lists wait to be sorted by other columns, or no thread can sort them now")]
    NotSorted,
    #[error("the database thread has ended")]
    ThreadEnded,
}

fn version_advice(found: i64, known: i64) -> &'static str {
    if found > known { "update this program" } else { "start the daemon once, which updates it" }
}

pub(super) fn misconfigured(hint: OperatorError) -> StoreError {
    match hint.remedy() {
        None => StoreError::Misconfigured(Box::new(hint)),
        Some(remedy) => {
            let what = hint.to_string();
            // The cause of the hint; the hint itself is already in the text.
            let error = hint.into_cause();
            StoreError::Misconfigured(Box::new(ErrorWithRemedy { what, remedy, error }))
        }
    }
}

pub(super) fn unavailable(error: TransientError) -> StoreError {
    StoreError::Unavailable(Box::new(error))
}

/// Classifies a file system error.
pub(super) fn classify_io(error: io::Error, path: &Path) -> StoreError {
    let path = path.to_owned();
    match error.kind() {
        ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::AlreadyExists
        | ErrorKind::InvalidFilename => misconfigured(OperatorError::Inaccessible { path, error }),
        _ => unavailable(TransientError::File { path, error }),
    }
}

/// Classifies a SQLite error. Unknown errors are retried: no row is rejected on a guess.
pub(super) fn classify(error: rusqlite::Error, path: &Path) -> StoreError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
            StoreError::Rejected(Box::new(error))
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            misconfigured(OperatorError::Damaged { path, error })
        }
        // SQLite also reports "read only" for a file that was moved away while open; reopening helps.
        Some(ErrorCode::ReadOnly) if !is_moved(&error) => misconfigured(OperatorError::NotWritable { path, error }),
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            misconfigured(OperatorError::NotWritable { path, error })
        }
        // SQLite does not say why it cannot open a file.
        Some(ErrorCode::CannotOpen) if path.is_dir() => classify_io(ErrorKind::IsADirectory.into(), &path),
        Some(ErrorCode::CannotOpen) => match fs::File::open(&path) {
            Err(denied) if denied.kind() == ErrorKind::PermissionDenied => classify_io(denied, &path),
            _ => unavailable(TransientError::Database { path, error }),
        },
        // SQLITE_ERROR: a missing table or column; our own statements have no other fault.
        Some(ErrorCode::Unknown) => misconfigured(OperatorError::Foreign { path, error }),
        Some(_) => unavailable(TransientError::Database { path, error }),
        None => match error {
            rusqlite::Error::SqlInputError { .. } | rusqlite::Error::InvalidColumnName(_) => {
                misconfigured(OperatorError::Foreign { path, error })
            }
            rusqlite::Error::ToSqlConversionFailure(_)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::NulError(_)
            | rusqlite::Error::Utf8Error(..) => StoreError::Rejected(Box::new(error)),
            _ => unavailable(TransientError::Database { path, error }),
        },
    }
}

fn is_moved(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(cause, _)
        if cause.extended_code == rusqlite::ffi::SQLITE_READONLY_DBMOVED)
}

/// Whether one request is at fault and not the file, so that the other requests of the transaction are retried without it.
pub(super) fn is_of_one_request(error: &StoreError) -> bool {
    match error {
        StoreError::Rejected(_) => true,
        StoreError::Unavailable(error) => matches!(error.downcast_ref(), Some(TransientError::RunDeleted)),
        StoreError::Misconfigured(_) => false,
    }
}

/// Copies the error for every batch of a transaction.
pub(super) fn duplicate(error: &StoreError) -> StoreError {
    let cause = |cause: &BoxError| -> BoxError {
        let what = Chain(&**cause).to_string();
        match remedy(&**cause) {
            None => what.into(),
            Some(remedy) => ErrorWithRemedy { what, remedy: remedy.to_owned(), error: None }.into(),
        }
    };
    match error {
        StoreError::Unavailable(error) => StoreError::Unavailable(cause(error)),
        StoreError::Misconfigured(error) => StoreError::Misconfigured(cause(error)),
        StoreError::Rejected(error) => StoreError::Rejected(cause(error)),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn errors_are_classified() {
        for (code, expected) in [
            (ffi::SQLITE_FULL, "unavailable"),
            (ffi::SQLITE_BUSY, "unavailable"),
            (ffi::SQLITE_IOERR, "unavailable"),
            (ffi::SQLITE_CANTOPEN, "unavailable"),
            (ffi::SQLITE_READONLY_DBMOVED, "unavailable"),
            (ffi::SQLITE_NOTADB, "misconfigured"),
            (ffi::SQLITE_CORRUPT, "misconfigured"),
            (ffi::SQLITE_READONLY, "misconfigured"),
            (ffi::SQLITE_ERROR, "misconfigured"),
            (ffi::SQLITE_CONSTRAINT_NOTNULL, "rejected"),
            (ffi::SQLITE_TOOBIG, "rejected"),
        ] {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            let found = match classify(error, Path::new("x.db")) {
                StoreError::Unavailable(_) => "unavailable",
                StoreError::Misconfigured(_) => "misconfigured",
                StoreError::Rejected(_) => "rejected",
            };
            assert_eq!(found, expected, "{code}");
        }
        let cannot_open = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), None);
        let error = classify(cannot_open, Path::new("/tmp"));
        let StoreError::Misconfigured(cause) = error else { panic!("a directory is no file: {error:?}") };
        assert!(remedy(&*cause).is_some_and(|remedy| remedy.contains("store.sqlite.path")), "{cause:?}");
        // The WAL may hold the newest rows: all three files are moved.
        let damaged = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), None);
        let StoreError::Misconfigured(cause) = classify(damaged, Path::new("a b.db")) else { panic!("it is damaged") };
        let folder = tempfile::tempdir().unwrap();
        for name in ["a b.db", "a b.db-wal"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let told = remedy(&*cause).unwrap().to_owned();
        let done = std::process::Command::new("sh").args(["-c", &told]).current_dir(folder.path()).status().unwrap();
        assert!(done.success(), "{told}");
        for name in ["a b.db", "a b.db-wal"] {
            assert_eq!(fs::read(folder.path().join("a b.db.aside").join(name)).unwrap(), name.as_bytes());
            assert!(!folder.path().join(name).exists());
        }
    }
}
