//! Backups of what a daemon keeps on this machine, while it runs or not, and their return into an empty state directory.
//!
//! # What is in a backup
//! The SQLite database; the spool with its checkpoint, quarantine and owner; the dead letters and which of them were dropped; the
//! open runs (`runs.json`) and a pause (`pause.json`). With Cassandra everything but the tables.
//!
//! Not in it: the configuration, passwords and tokens, and the key of the sessions with the list of ended ones, so that a backup
//! holds no secret (people sign in again after a restore); records in memory only, while the disk takes none.
//!
//! # Why no row is lost, and none is there twice
//! A record is stored, then the checkpoint passes it, then its segment is removed. The backup goes the same way, in this order:
//!
//! 1. The open runs are read.
//! 2. Every segment is opened. From now on its removal takes no byte from the backup. One that is removed before it is opened is
//!    committed, and is not needed.
//! 3. The checkpoint is read.
//! 4. A read transaction of the database begins, and the database is copied.
//! 5. The dead letters are opened, and everything is written.
//!
//! Take a record that was durable when the backup began. Either it is below the checkpoint of step 3: then its rows were committed
//! before that checkpoint was written, so that the transaction of step 4 sees them, or its dead letter is durable and seen in step 5.
//! Or it is not below: then its segment was not removed before step 3, so that step 2 has opened it, and the restored daemon writes
//! it from there. What was stored up to step 4 is in the database. In the other order, a record that is stored and removed between
//! the copy of the database and that of the spool would be in neither.
//!
//! A record may be in the database and above the checkpoint, too. Its replay writes the same rows under the same keys, and its dead
//! letter is recognised, as after a crash of the daemon.
//!
//! The open runs are those of an offset (`as_of`), from which on a start reads the log again. Step 1 comes before step 2, so that this
//! offset is not behind the end of the segments; where a segment from that offset on was removed in between, both are repeated.
//!
//! # The id of a restored spool
//! It is the old one: the checksums of its records start from it. The restored daemon continues behind the last record of the backup
//! and behind its checkpoint, and so uses offsets again that the original used after the backup. Nothing is taken for something else
//! because of that: the keys of rows come from messages alone, dead letters are told apart by time and hash besides the offset, and
//! the offsets of `runs.json` and `pause.json` are those of the backup's own log. The old directory is moved aside by a restore, and
//! never mixed with the new one; `spool drain` of it writes what only it has.

mod archive;
mod restore;
mod take;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use self::archive::Unreadable;
pub use self::{
    restore::{Restored, restore},
    take::{Taken, take},
};
use super::error::AppError;
use crate::{
    control, intake,
    spool::SpoolError,
    store::{StoreKind, sqlite::copy::CopyError},
};

/// The files of the state directory that are in a backup.
const STATE_FILES: [&str; 2] = [intake::STATE_FILE, control::PAUSE_FILE];
/// Places in a backup.
const SPOOL: &str = "spool";
const DEAD_LETTERS: &str = "deadletter";
const STATE: &str = "state";

/// Why there is no backup, or why it was not restored.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum BackupError {
    #[error("`{}` exists: name another file, or give --overwrite", .0.display())]
    Exists(PathBuf),
    #[error("another backup is being written to `{}`", .0.display())]
    Busy(PathBuf),
    #[error("failed to copy the database")]
    Database(#[source] CopyError),
    #[error("failed to read the spool")]
    Spool(#[source] SpoolError),
    #[error("failed to read `{}`", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("failed to write `{}`", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("`{}` is no backup, or was cut short: its end is not that of a backup", .0.display())]
    NoBackup(PathBuf),
    #[error("`{}` is damaged: its bytes do not match its checksum", .0.display())]
    Damaged(PathBuf),
    #[error(
        "`{}` has format {found} of backups, and this program knows {} at most: restore it with the newer version that wrote it",
        .path.display(), archive::VERSION
    )]
    Newer { path: PathBuf, found: u32 },
    #[error(
        "the database in `{}` has schema version {found}, and this program knows {known} at most: restore it with version \
         {program} of the program or a newer one",
        .path.display()
    )]
    NewerDatabase { path: PathBuf, found: i64, known: i64, program: String },
    #[error("`{}` is a backup with `store.kind` {backup}, and this configuration has {configured}", .path.display())]
    OtherStore { path: PathBuf, backup: String, configured: &'static str },
    #[error(
        "there is state in the way: {}; name another `state_dir`, or move it aside with --force, which deletes nothing",
        list(.0)
    )]
    NotEmpty(Vec<PathBuf>),
    #[error("the daemon must be stopped first")]
    InUse(#[source] SpoolError),
    #[error("`{}` is open in process {holder}: stop every daemon and command that uses it first", .path.display())]
    DatabaseInUse { path: PathBuf, holder: i32 },
    #[error("failed to move `{}` aside", .path.display())]
    Aside {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

impl BackupError {
    fn unreadable(path: &Path, error: Unreadable) -> Self {
        let path = path.to_owned();
        match error {
            Unreadable::NoTrailer => Self::NoBackup(path),
            Unreadable::Newer(found) => Self::Newer { path, found },
            Unreadable::Damaged => Self::Damaged(path),
            Unreadable::Io(error) => Self::Read { path, error },
        }
    }
}

/// Refuses a state directory of which a restore has written a part.
pub(super) fn refuse_unfinished(state_dir: &Path) -> Result<(), AppError> {
    match fs::read(state_dir.join(restore::MARKER)) {
        Ok(backup) => Err(AppError::UnfinishedRestore {
            state_dir: state_dir.to_owned(),
            backup: String::from_utf8_lossy(&backup).into_owned(),
        }),
        Err(_) => Ok(()),
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", ")
}

fn reading(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    move |error| BackupError::Read { path: path.to_owned(), error }
}

fn writing(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    move |error| BackupError::Write { path: path.to_owned(), error }
}

fn store_name(kind: StoreKind) -> &'static str {
    match kind {
        StoreKind::Sqlite => "sqlite",
        StoreKind::Cassandra => "cassandra",
    }
}
