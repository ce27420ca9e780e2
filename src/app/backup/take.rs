//! Making a backup.

use std::{
    ffi::OsString,
    fs::{self, File, Permissions, TryLockError},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use uuid::Uuid;

use super::{
    BackupError, DEAD_LETTERS, SPOOL, STATE, STATE_FILES,
    archive::{Index, Writer},
    reading, store_name, writing,
};
use crate::{
    config::Settings,
    files, intake,
    spool::{
        self,
        disk::Disk,
        snapshot::{self, OpenedFile},
    },
    store::{
        StoreKind,
        sqlite::copy::{self, Copied},
    },
    units,
};

/// How often the open runs and the segments are read again because they do not belong together.
const SNAPSHOT_TRIES: usize = 5;

/// A backup that was made.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its length.
    pub bytes: u64,
    /// Length of the database in it; `None`: the tables are in Cassandra, and not in the backup.
    pub database_bytes: Option<u64>,
    /// Records in the spool that waited for the store.
    pub waiting: u64,
    /// Files in it besides the database.
    pub files: usize,
}

/// Writes a backup to `path`: into a file beside it, which is renamed at the end. `progress` gets the bytes that are done, and all.
///
/// # Errors
/// When the file exists and is not to be overwritten, the state cannot be read, or the file cannot be written; nothing is left.
pub fn take(
    settings: &Settings,
    path: &Path,
    overwrite: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Taken, BackupError> {
    if !overwrite && path.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(path.to_owned()));
    }
    allow_open_files();
    let spool = spool::inspect(&settings.spool.dir).map_err(BackupError::Spool)?;
    let state = open_state(settings, spool.id)?;
    let part = Part::begin(path)?;
    let (bytes, index) = write(settings, &part, state, progress)?;
    part.publish(path, overwrite)?;
    let database_bytes = index.schema_version.map(|_| index.database_bytes);
    Ok(Taken { bytes, database_bytes, waiting: spool.pending, files: index.files.len() })
}

/// The file that is being written. Removed unless it is published.
struct Part {
    path: PathBuf,
    file: File,
    published: bool,
}

impl Part {
    /// A file that a killed backup has left is used again.
    fn begin(target: &Path) -> Result<Self, BackupError> {
        let mut name = OsString::from(target.as_os_str());
        name.push(".part");
        let path = PathBuf::from(name);
        let file = files::open_lock(&path).map_err(writing(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BackupError::Busy(path)),
            Err(TryLockError::Error(error)) => return Err(writing(&path)(error)),
        }
        // Published or removed by its writer since it was opened.
        let is_there = path.symlink_metadata().and_then(|there| Ok(there.ino() == file.metadata()?.ino()));
        if !is_there.unwrap_or(false) {
            return Err(BackupError::Busy(path));
        }
        let emptied = file.set_permissions(Permissions::from_mode(files::FILE_MODE)).and_then(|()| file.set_len(0));
        emptied.map_err(writing(&path))?;
        Ok(Self { path, file, published: false })
    }

    fn publish(mut self, target: &Path, overwrite: bool) -> Result<(), BackupError> {
        let renamed = if overwrite { fs::rename(&self.path, target) } else { files::rename_new(&self.path, target) };
        renamed.map_err(writing(target))?;
        self.published = true;
        files::sync_parent(target).map_err(writing(target))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A segment takes a descriptor until it is written: a large spool has some hundreds.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Steps 1 to 3 of the module: the small files, then the spool, as they belong together.
fn open_state(settings: &Settings, spool: Option<Uuid>) -> Result<Vec<(&'static str, OpenedFile)>, BackupError> {
    let dir = &settings.spool.dir;
    let mut tries = 0;
    loop {
        tries += 1;
        let mut opened = Vec::new();
        let mut as_of = None;
        for name in STATE_FILES {
            let path = settings.state_dir.join(name);
            let file = snapshot::open(&Disk::read_only(), &settings.state_dir, &path).map_err(reading(&path))?;
            let Some(file) = file else { continue };
            if name == intake::STATE_FILE {
                as_of = read(&file).ok().and_then(|bytes| intake::recovered_from(&bytes, spool?));
            }
            opened.push((STATE, file));
        }
        let files = snapshot::open_files(dir).map_err(reading(dir))?;
        let reaches_back = |as_of| files.first.is_none_or(|first| first <= as_of);
        if tries < SNAPSHOT_TRIES && !as_of.is_none_or(reaches_back) {
            continue;
        }
        opened.extend(files.files.into_iter().map(|file| (SPOOL, file)));
        let quarantine = snapshot::open_all(&dir.join(spool::QUARANTINE), "", true).map_err(reading(dir))?;
        let inside = |file: OpenedFile| OpenedFile { name: format!("{}/{}", spool::QUARANTINE, file.name), ..file };
        opened.extend(quarantine.into_iter().map(|file| (SPOOL, inside(file))));
        return Ok(opened);
    }
}

fn read(opened: &OpenedFile) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(opened.bytes).unwrap_or(0)];
    let read = opened.file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Steps 4 and 5: the database, the dead letters, and all bytes. Returns the length of the backup, and what it is.
fn write(
    settings: &Settings,
    part: &Part,
    mut opened: Vec<(&'static str, OpenedFile)>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(u64, Index), BackupError> {
    let of_files = |opened: &[(&str, OpenedFile)]| opened.iter().map(|(_, file)| file.bytes).sum::<u64>();
    let kind = settings.store.kind;
    let copied = match kind {
        StoreKind::Cassandra => None,
        StoreKind::Sqlite => {
            let other = of_files(&opened);
            // The database is written, then read for the checksum.
            let copied = copy::copy(&settings.store.sqlite, &part.path, &mut |done, total| {
                progress(done, 2 * total + other);
            });
            Some(copied.map_err(BackupError::Database)?)
        }
    };
    let letters = &settings.dead_letter.dir;
    for ending in ["marks.json", ".seg"] {
        let found = snapshot::open_all(letters, ending, false).map_err(reading(letters))?;
        opened.extend(found.into_iter().map(|file| (DEAD_LETTERS, file)));
    }
    let database_bytes = copied.map_or(0, |copied| copied.bytes);
    let (mut done, total) = (database_bytes, 2 * database_bytes + of_files(&opened));
    let mut advance = |bytes| {
        done += bytes;
        progress(done, total);
    };
    let mut writer = Writer::after_database(&part.file, database_bytes, &mut advance).map_err(writing(&part.path))?;
    let mut entries = Vec::with_capacity(opened.len());
    for (place, file) in opened {
        entries.push(writer.add(place, &file).map_err(writing(&part.path))?);
    }
    let index = Index {
        program: env!("CARGO_PKG_VERSION").into(),
        created_at: units::now(),
        instance: settings.instance.clone(),
        store: store_name(kind).into(),
        database_bytes,
        schema_version: copied.map(|Copied { schema_version, .. }| schema_version),
        files: entries,
    };
    let bytes = writer.finish(&index).map_err(writing(&part.path))?;
    Ok((bytes, index))
}
