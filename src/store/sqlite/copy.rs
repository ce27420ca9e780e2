//! A consistent copy of the database while other processes write it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, backup};
use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};

use super::{
    Config,
    database::{Database, latest, version},
    error::{self, OperatorError},
};
use crate::store::StoreError;

/// Pages copied between two calls of the progress: 4 MiB.
const STEP_PAGES: i32 = 1_024;
/// Delay before a step that met a lock is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(20);
/// The bytes of a database file that every connection in WAL mode holds a lock on.
const SHARED_LOCK: (u64, u64) = (0x4000_0002, 510);

/// What was copied.
#[derive(Clone, Copy, Debug)]
pub struct Copied {
    /// Bytes of the copy.
    pub bytes: u64,
    /// Schema version of the database.
    pub schema_version: i64,
}

/// Why the database could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// It cannot be read.
    #[error("failed to read the database")]
    Read(#[source] StoreError),
    /// The copy stopped on the way: the disk of the copy is full, or a page cannot be read.
    #[error("failed to copy `{}`", .path.display())]
    Copy {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        error: rusqlite::Error,
    },
}

/// Copies the database of `config` to the beginning of an empty file, page by page. The copy is the database at one moment, after
/// the call: a read transaction is held from the first page to the last. It delays no writer. What is written meanwhile stays in
/// the write-ahead log, which grows until the copy is done. Nothing is synced.
///
/// # Errors
/// When there is no database, it cannot be read or is newer than this program, or the copy cannot be written.
pub fn copy(config: &Config, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Copied, CopyError> {
    let database = Database { path: config.path.clone(), create: false };
    let (source, schema_version) = database.snapshot().map_err(CopyError::Read)?;
    copy_pages(&source, to, progress)
        .map(|bytes| Copied { bytes, schema_version })
        .map_err(|error| CopyError::Copy { path: config.path.clone(), error })
}

fn copy_pages(source: &Connection, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> rusqlite::Result<u64> {
    let page_bytes: u32 = source.query_row("PRAGMA page_size", (), |row| row.get(0))?;
    // No locks: the file is held by its creator, and not every file system for backups has them.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut target = Connection::open_with_flags_and_vfs(to, flags, c"unix-none")?;
    target.pragma_update(None, "journal_mode", "OFF")?;
    target.pragma_update(None, "synchronous", "OFF")?;
    target.pragma_update(None, "cache_size", -8_192)?;
    let copying = backup::Backup::new(source, &mut target)?;
    loop {
        let step = copying.step(STEP_PAGES)?;
        let pages = copying.progress();
        let [total, left] = [pages.pagecount, pages.remaining].map(|pages| u64::try_from(pages).unwrap_or(0));
        let page_bytes = u64::from(page_bytes);
        progress((total - left.min(total)) * page_bytes, total * page_bytes);
        match step {
            backup::StepResult::Done => return Ok(total * page_bytes),
            backup::StepResult::More => {}
            _ => thread::sleep(RETRY_DELAY),
        }
    }
}

impl Database {
    /// A connection inside a read transaction, and the schema version. An older version is read as it is.
    fn snapshot(&self) -> Result<(Connection, i64), StoreError> {
        if !self.path.exists() {
            return Err(error::misconfigured(OperatorError::Missing(self.path.clone())));
        }
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        let begin = || {
            connection.execute_batch("BEGIN")?;
            version(&connection)
        };
        let found = begin().map_err(|e| error::classify(e, &self.path))?;
        if found > latest() {
            self.check_version(found)?;
        }
        Ok((connection, found))
    }
}

/// The newest schema version that this program knows.
pub fn schema_version() -> i64 {
    latest()
}

/// The process that has the database open, if there is one. A database that is absent is not in use.
///
/// # Errors
/// When the locks cannot be read.
pub fn holder(path: &Path) -> io::Result<Option<i32>> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let wanted = Flock {
        start: SHARED_LOCK.0,
        length: SHARED_LOCK.1,
        pid: None,
        typ: FlockType::WriteLock,
        offset_type: FlockOffsetType::Set,
    };
    let found = fcntl_getlk(&file, &wanted)?;
    // A process of another namespace has no pid here.
    Ok(found.map(|lock| lock.pid.map_or(0, |pid| pid.as_raw_nonzero().get())))
}

/// The database and the files that SQLite keeps beside it.
pub fn files(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    })
}
