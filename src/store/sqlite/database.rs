//! The database file: creation, opening, migration, and detection of a replaced file.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};
use rustix::fs::Access;

use super::error::{self, OperatorError};
use crate::{cooperative, files, store::StoreError, units::now};

/// Compiled-in migrations; the number is the schema version after the migration.
const MIGRATIONS: &[(i64, &str)] = &[
    (1, include_str!("../../../schema/sqlite/0001_tables.sql")),
    (2, include_str!("../../../schema/sqlite/0002_restarts_and_names.sql")),
    (3, include_str!("../../../schema/sqlite/0003_long_texts.sql")),
    (4, include_str!("../../../schema/sqlite/0004_edits_and_deletions.sql")),
    (5, include_str!("../../../schema/sqlite/0005_run_changes.sql")),
];

/// Component name of these tables in `schema_version`.
const COMPONENT: &str = "cascor";

/// SQLite steps between two yields of the core: about a tenth of a millisecond.
const PROGRESS_STEPS: i32 = 2_000;

/// Busy timeout while another process holds the write lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// WAL pages before a checkpoint: 16 MiB, so that a burst is checkpointed once.
const CHECKPOINT_PAGES: i64 = 4_096;

/// Path of the file, and whether this process may create, migrate and fill it; else it only makes the changes of people.
#[derive(Clone, Debug)]
pub(super) struct Database {
    pub path: PathBuf,
    pub create: bool,
}

/// An open connection, with the identity of its file.
pub(super) struct OpenDatabase {
    pub connection: Connection,
    /// Device and number of the file.
    pub identity: (u64, u64),
}

impl Database {
    /// Opens a connection that writes; creates the file and migrates it to the current version, if this process may.
    pub fn writer(&self) -> Result<OpenDatabase, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if !self.create {
            self.check_editable()?;
            let connection = self.connect(flags)?;
            self.check_version(version(&connection).map_err(|e| error::classify(e, &self.path))?)?;
            return self.identify(connection);
        }
        create(&self.path)?;
        let mut connection = self.connect(flags)?;
        self.migrate(&mut connection)?;
        self.identify(connection)
    }

    /// Refuses a file that this user cannot write, before SQLite opens it read-only without a word. The folder, too: the journal is
    /// created there.
    fn check_editable(&self) -> Result<(), StoreError> {
        if !self.path.exists() {
            return Err(error::misconfigured(OperatorError::Missing(self.path.clone())));
        }
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let writable = |path: &Path, access| rustix::fs::access(path, access).is_ok();
        if writable(&self.path, Access::WRITE_OK) && writable(folder, Access::WRITE_OK | Access::EXEC_OK) {
            return Ok(());
        }
        Err(error::misconfigured(OperatorError::NotEditable(self.path.clone())))
    }

    /// Opens a read-only connection, which never waits for the writer.
    pub fn reader(&self) -> Result<OpenDatabase, StoreError> {
        if self.create {
            // The first to open creates the tables, so that a reader never fails because it opened before the writer.
            if !self.path.exists() || self.is_old()? {
                self.writer()?;
            }
        } else if !self.path.exists() {
            return Err(error::misconfigured(OperatorError::Missing(self.path.clone())));
        }
        let mut connection = self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        self.check_version(version(&connection).map_err(|e| error::classify(e, &self.path))?)?;
        let look = || {
            cooperative::yield_core();
            false
        };
        connection.progress_handler(PROGRESS_STEPS, Some(look)).map_err(|e| error::classify(e, &self.path))?;
        self.identify(connection)
    }

    /// Whether the path no longer names the opened file: it was moved or deleted, and further writes would be lost.
    pub fn was_replaced(&self, open: &OpenDatabase) -> bool {
        fs::metadata(&self.path).map_or(true, |found| (found.dev(), found.ino()) != open.identity)
    }

    fn identify(&self, connection: Connection) -> Result<OpenDatabase, StoreError> {
        let found = fs::metadata(&self.path).map_err(|e| error::classify_io(e, &self.path))?;
        Ok(OpenDatabase { connection, identity: (found.dev(), found.ino()) })
    }

    pub(super) fn connect(&self, flags: OpenFlags) -> Result<Connection, StoreError> {
        files::refuse_planted_link(&self.path).map_err(|e| error::classify_io(e, &self.path))?;
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(&self.path, flags)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.set_prepared_statement_cache_capacity(32);
            let writes = !flags.contains(OpenFlags::SQLITE_OPEN_READ_ONLY);
            if writes {
                connection.pragma_update(None, "journal_mode", "WAL")?;
                connection.pragma_update(None, "synchronous", "FULL")?;
                connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
                connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
            }
            // KiB. The page cache of the system serves reads; a long row would only fill this one.
            connection.pragma_update(None, "cache_size", if writes { -8_192 } else { -2_048 })?;
            Ok(connection)
        };
        open().map_err(|e| error::classify(e, &self.path))
    }

    fn is_old(&self) -> Result<bool, StoreError> {
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        Ok(version(&connection).map_err(|e| error::classify(e, &self.path))? < latest())
    }

    /// Applies missing migrations in one transaction, so that of two processes opening at once the second finds them applied.
    fn migrate(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let found = version(connection).map_err(|e| error::classify(e, &self.path))?;
        if found < latest() {
            apply(connection).map_err(|e| error::classify(e, &self.path))?;
        } else if found > latest() {
            self.check_version(found)?;
        }
        Ok(())
    }

    pub(super) fn check_version(&self, found: i64) -> Result<(), StoreError> {
        if found == latest() {
            return Ok(());
        }
        let path = self.path.clone();
        Err(error::misconfigured(OperatorError::Version { path, found, known: latest() }))
    }
}

/// The schema version that this program writes.
pub(super) fn latest() -> i64 {
    MIGRATIONS[MIGRATIONS.len() - 1].0
}

/// The statements of all migrations in order, for `schema print`.
pub fn migrations() -> impl Iterator<Item = (i64, &'static str)> {
    MIGRATIONS.iter().copied()
}

fn apply(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_version (
             component TEXT NOT NULL PRIMARY KEY, version INTEGER NOT NULL, applied_at INTEGER NOT NULL)",
    )?;
    let found = version(&transaction)?;
    for (number, statements) in MIGRATIONS.iter().filter(|(number, _)| *number > found) {
        transaction.execute_batch(statements)?;
        transaction.execute(
            "INSERT OR REPLACE INTO schema_version (component, version, applied_at) VALUES (?1, ?2, ?3)",
            (COMPONENT, number, now()),
        )?;
    }
    transaction.commit()
}

/// The schema version of the file; 0 for an empty one.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    let exists = connection
        .query_row("SELECT 1 FROM sqlite_schema WHERE name = 'schema_version'", (), |_| Ok(()))
        .optional()?
        .is_some();
    if !exists {
        return Ok(0);
    }
    let sql = "SELECT version FROM schema_version WHERE component = ?1";
    Ok(connection.query_row(sql, [COMPONENT], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Creates the file before SQLite does, with the mode of the state; its WAL and shared-memory files inherit the mode.
fn create(path: &Path) -> Result<(), StoreError> {
    let try_create = || -> io::Result<()> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            files::create_dir(folder)?;
        }
        if path.is_symlink() {
            return files::refuse_planted_link(path);
        }
        match files::create_new(path, files::file_mode()) {
            Ok(file) => files::give_to_owner_of_directory(&file, path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    };
    try_create().map_err(|e| error::classify_io(e, path))
}
