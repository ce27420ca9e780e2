//! Returning a backup into a state directory.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rustix::process::geteuid;

use super::{
    BackupError, DEAD_LETTERS, SPOOL, STATE, STATE_FILES,
    archive::{Archive, Entry},
    reading, store_name, writing,
};
use crate::{
    config::Settings,
    files,
    spool::{self, Held},
    store::{StoreKind, sqlite::copy},
};

/// Exists while a restore is under way, and after one that was interrupted.
pub(in crate::app) const MARKER: &str = "restore.unfinished";

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The instance that made the backup.
    pub instance: String,
    /// Version of the program that made it.
    pub program: String,
    /// When it was made.
    pub created_at: i64,
    /// Whether the tables are among it.
    pub has_database: bool,
    /// Records that wait for the store.
    pub waiting: u64,
    /// What was there before, under its new names.
    pub moved_aside: Vec<PathBuf>,
    /// Records that the spool moved aside has not stored, and its new name.
    pub left_in_spool: Option<(u64, PathBuf)>,
}

/// Where the parts of a backup go.
struct Target<'a> {
    settings: &'a Settings,
    has_database: bool,
}

/// Restores the backup in `path` into the directories of the settings. Everything is checked before anything is changed. What is there
/// is refused, or moved aside with `force`. `progress` gets the bytes that are done, and all.
///
/// # Errors
/// When the file is no backup, is damaged or too new, a daemon is running, or something is in the way; then nothing has changed.
/// When a file cannot be written: then the directory is marked, and the daemon refuses to start on it.
pub fn restore(
    settings: &Settings,
    path: &Path,
    force: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Restored, BackupError> {
    let file = File::open(path).map_err(reading(path))?;
    let archive = Archive::open(file).map_err(|error| BackupError::unreadable(path, error))?;
    let target = Target { settings, has_database: settings.store.kind == StoreKind::Sqlite };
    target.accepts(&archive, path)?;
    let locks = target.lock()?;
    let in_the_way = target.occupied().map_err(reading(&settings.state_dir))?;
    if !force && !in_the_way.is_empty() {
        return Err(BackupError::NotEmpty(in_the_way));
    }
    let (mut done, total) = (0, 2 * archive.bytes);
    let mut advance = |bytes| {
        done += bytes;
        progress(done, total);
    };
    archive.verify(&mut advance).map_err(|error| BackupError::unreadable(path, error))?;

    let marker = settings.state_dir.join(MARKER);
    create_dir(&settings.state_dir).map_err(writing(&settings.state_dir))?;
    files::replace(&marker, path.as_os_str().as_encoded_bytes(), files::FILE_MODE).map_err(writing(&marker))?;
    let old_spool = spool::inspect(&settings.spool.dir).map_or(0, |report| report.pending);
    let moved_aside = move_aside(&in_the_way)?;
    drop(locks);
    let _locks = target.fill(&archive, &mut advance)?;
    let waiting = spool::inspect(&settings.spool.dir).map_err(BackupError::Spool)?.pending;
    fs::remove_file(&marker).and_then(|()| files::sync_parent(&marker)).map_err(writing(&marker))?;
    let position = in_the_way.iter().position(|old| *old == settings.spool.dir);
    let left_in_spool = position.filter(|_| old_spool > 0).map(|at| (old_spool, moved_aside[at].clone()));
    let index = archive.index;
    Ok(Restored {
        instance: index.instance,
        program: index.program,
        created_at: index.created_at,
        has_database: target.has_database,
        waiting,
        moved_aside,
        left_in_spool,
    })
}

impl Target<'_> {
    /// Whether this program with these settings can use the backup.
    fn accepts(&self, archive: &Archive, path: &Path) -> Result<(), BackupError> {
        let (index, configured) = (&archive.index, store_name(self.settings.store.kind));
        let path = || path.to_owned();
        if index.store != configured {
            return Err(BackupError::OtherStore { path: path(), backup: index.store.clone(), configured });
        }
        let known = copy::schema_version();
        if let Some(found) = index.schema_version.filter(|found| *found > known) {
            let program = index.program.clone();
            return Err(BackupError::NewerDatabase { path: path(), found, known, program });
        }
        if index.files.iter().any(|entry| self.place(entry).is_none()) {
            return Err(BackupError::Damaged(path()));
        }
        Ok(())
    }

    /// The file for an entry of the backup.
    fn place(&self, entry: &Entry) -> Option<PathBuf> {
        let (place, name) = entry.place()?;
        let dir = match place {
            SPOOL => &self.settings.spool.dir,
            DEAD_LETTERS => &self.settings.dead_letter.dir,
            STATE if STATE_FILES.contains(&name.to_str()?) => &self.settings.state_dir,
            _ => return None,
        };
        Some(dir.join(name))
    }

    /// Refuses while a daemon uses the directories, and keeps one from starting.
    fn lock(&self) -> Result<Vec<Held>, BackupError> {
        let mut locks = Vec::new();
        let dir = &self.settings.spool.dir;
        // A lock file would be in the way of the restore.
        if dir.is_dir() && !is_empty_dir(dir).map_err(reading(dir))? {
            locks.push(spool::hold(dir).map_err(BackupError::InUse)?);
        }
        if self.has_database {
            let path = &self.settings.store.sqlite.path;
            if let Some(holder) = copy::holder(path).map_err(reading(path))? {
                return Err(BackupError::DatabaseInUse { path: path.clone(), holder });
            }
        }
        Ok(locks)
    }

    /// What is where the backup goes. The marker of an interrupted restore is not asked for: what that wrote is here.
    fn occupied(&self) -> io::Result<Vec<PathBuf>> {
        let settings = self.settings;
        let mut found = Vec::new();
        for dir in [&settings.spool.dir, &settings.dead_letter.dir] {
            if dir.symlink_metadata().is_ok() && !(dir.is_dir() && is_empty_dir(dir)?) {
                found.push(dir.clone());
            }
        }
        let database = self.has_database.then(|| copy::files(&settings.store.sqlite.path));
        let state = STATE_FILES.map(|name| settings.state_dir.join(name));
        let files = database.into_iter().flatten().chain(state);
        found.extend(files.filter(|path| path.symlink_metadata().is_ok()));
        Ok(found)
    }

    /// Writes everything. The spool is locked as soon as its directory exists.
    fn fill(&self, archive: &Archive, progress: &mut dyn FnMut(u64)) -> Result<Held, BackupError> {
        let (spool, letters) = (&self.settings.spool.dir, &self.settings.dead_letter.dir);
        for dir in [spool, letters] {
            create_dir(dir).map_err(writing(dir))?;
        }
        let held = spool::hold(spool).map_err(BackupError::InUse)?;
        adopt(&spool.join("lock")).map_err(writing(spool))?;
        let mut put = |at, bytes, path: &Path| {
            let mut write = || {
                create_dir(files::directory(path))?;
                archive.extract(at, bytes, files::create_new(path, files::FILE_MODE)?, progress)?;
                adopt(path)
            };
            write().map_err(writing(path))
        };
        if self.has_database {
            put(0, archive.index.database_bytes, &self.settings.store.sqlite.path)?;
        }
        let mut written = vec![self.settings.store.sqlite.path.clone(), spool.clone(), letters.clone()];
        for entry in &archive.index.files {
            if let Some(path) = self.place(entry) {
                put(entry.at, entry.bytes, &path)?;
                written.push(path);
            }
        }
        let dirs: BTreeSet<_> = written.iter().map(|path| files::directory(path)).filter(|dir| dir.is_dir()).collect();
        dirs.into_iter().try_for_each(|dir| files::sync_dir(dir).map_err(writing(dir)))?;
        Ok(held)
    }
}

/// Renames each beside itself. The database and its log keep names that belong together.
fn move_aside(paths: &[PathBuf]) -> Result<Vec<PathBuf>, BackupError> {
    let suffix = format!(".before-restore-{}", Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ"));
    let mut moved = Vec::with_capacity(paths.len());
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let log = ["-wal", "-shm"].into_iter().find(|end| name.ends_with(end)).unwrap_or("");
        let to = path.with_file_name(format!("{}{suffix}{log}", name.strip_suffix(log).unwrap_or(&name)));
        let renamed = files::rename_new(path, &to).and_then(|()| files::sync_parent(&to));
        renamed.map_err(|error| BackupError::Aside { path: path.clone(), error })?;
        moved.push(to);
    }
    Ok(moved)
}

fn is_empty_dir(dir: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(dir)?.next().is_none())
}

/// Creates a private directory, as the owner of the one above.
fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    files::create_dir(dir)?;
    adopt(dir)
}

/// Root restores for the user of the daemon: what is new gets the owner of its directory.
fn adopt(path: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let above = fs::metadata(files::directory(path))?;
    if above.uid() == 0 { Ok(()) } else { chown(path, Some(above.uid()), Some(above.gid())) }
}
