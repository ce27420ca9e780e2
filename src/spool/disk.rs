//! Every operation on files that the spool makes passes through here.
//!
//! [`Disk`] is a handle to a [`Files`]: the real file system, or in `tests/faults` one in memory that forgets at a crash what was
//! not synced, fills up, turns read-only and fails. One virtual call per operation, which is one per group and per 256 KiB read.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::OFlags;
use tracing::warn;
use uuid::Uuid;

use crate::{files, logging::Chain, units::Micros};

/// What the spool needs of a file system. Paths and errors are as in `std::fs`.
pub(crate) trait Files: fmt::Debug + Send + Sync {
    /// A regular file; anything else is an error, and is not waited for.
    fn open(&self, path: &Path, mode: Mode) -> io::Result<OpenFile>;
    /// The directory itself, to lock it; an error where that cannot be.
    fn open_dir(&self, dir: &Path) -> io::Result<OpenFile>;
    /// A directory that only we may enter, with what is missing above it.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes created, renamed and removed names durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// What a directory holds, in any order.
    fn list(&self, dir: &Path) -> io::Result<Vec<(PathBuf, Stat)>>;
    fn stat(&self, path: &Path) -> io::Result<Stat>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// An open file.
pub(crate) type OpenFile = Box<dyn Handle>;

/// What the spool needs of an open file.
pub(crate) trait Handle: fmt::Debug + Send + Sync {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize>;
    /// All bytes; after an error any part of them may have been written.
    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Makes the bytes durable, and the length with them.
    fn sync(&self) -> io::Result<()>;
    fn stat(&self) -> io::Result<Stat>;
    fn try_lock(&self) -> Result<(), TryLockError>;
    /// A hint that all of it will be read.
    fn advise_read(&self) {}
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// To read.
    Read,
    /// To read and change one that exists.
    ReadWrite,
    /// The same; one that does not exist is made, and only we may read it.
    OpenOrCreate,
    /// To write a new one that only we may read; one that exists is an error.
    CreateNew,
}

/// What is known about a file without reading it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) bytes: u64,
    /// Whether it is a regular file (a link is none).
    pub(crate) is_file: bool,
    /// Tells it from every other file that there is now: device and inode.
    pub(crate) id: (u64, u64),
    pub(crate) modified: Micros,
}

/// Numbers that are tried for a name that is taken.
const NAME_TRIES: u32 = 10_000;

/// The file system in use. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<dyn Files>);

impl Default for Disk {
    fn default() -> Self {
        Self::new(Arc::new(RealFiles { repairs_permissions: true }))
    }
}

impl std::ops::Deref for Disk {
    type Target = dyn Files;

    fn deref(&self) -> &(dyn Files + 'static) {
        &*self.0
    }
}

impl Disk {
    /// For reports: restores no permissions.
    pub(crate) fn read_only() -> Self {
        Self::new(Arc::new(RealFiles { repairs_permissions: false }))
    }

    pub(crate) fn new(files: Arc<dyn Files>) -> Self {
        Self(files)
    }

    /// Makes the bytes durable. Fails when the file was deleted, renamed or replaced meanwhile: a restart would not find them.
    pub(crate) fn sync(&self, file: &dyn Handle, path: &Path) -> io::Result<()> {
        file.sync()?;
        let there = match self.stat(path) {
            Ok(stat) => stat.id == file.stat()?.id,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        if !there {
            let what = "the file was deleted, renamed or replaced while it was written";
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        Ok(())
    }

    /// Replaces a small file: written under a random name, synced, renamed, the directory synced.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = temporary(path);
        self.clear_path(path)?;
        let file = self.open(&temporary, Mode::CreateNew)?;
        let written = file.write_all_at(bytes, 0).and_then(|()| self.sync(&*file, &temporary));
        if let Err(error) = written.and_then(|()| self.rename(&temporary, path)) {
            // On a full disk its room is needed.
            let _ = self.discard(&temporary);
            return Err(error);
        }
        self.sync_dir(path.parent().unwrap_or(Path::new(".")))
    }

    /// Removes temporary files that a crash has left of [`replace`](Self::replace) of this file, also those of earlier versions.
    pub(crate) fn remove_leftovers(&self, path: &Path) {
        let found = self.list(path.parent().unwrap_or(Path::new("."))).unwrap_or_default();
        for (left, stat) in found.iter().filter(|(left, stat)| stat.is_file && is_temporary(left, path)) {
            if let Err(error) = self.discard(left) {
                warn!(path = %left.display(), bytes = stat.bytes, %error, "a temporary file could not be removed");
            }
        }
    }

    /// Moves aside, in the same directory, something of this name that is no regular file.
    pub(crate) fn clear_path(&self, path: &Path) -> io::Result<()> {
        match self.stat(path) {
            Ok(stat) if !stat.is_file => {
                let aside = self.move_to(path, path)?;
                warn!(path = %path.display(), to = %aside.display(), "no regular file; moved aside");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Renames without replacing anything: a number is added to a name that is taken. Returns the name.
    pub(crate) fn move_to(&self, from: &Path, to: &Path) -> io::Result<PathBuf> {
        let names = (1..NAME_TRIES).map(|n| {
            let mut name = to.as_os_str().to_owned();
            name.push(format!(".{n}"));
            name.into()
        });
        let taken = |name: &PathBuf| self.stat(name).is_ok();
        let free = [to.to_owned()].into_iter().chain(names).find(|name| !taken(name));
        let free = free.ok_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists))?;
        self.rename(from, &free)?;
        Ok(free)
    }

    /// Removes a file that may be gone already.
    pub(crate) fn discard(&self, path: &Path) -> io::Result<()> {
        match self.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// A file to lock, made where there is none. On a read-only disk one that exists.
    pub(crate) fn open_lock(&self, path: &Path) -> io::Result<OpenFile> {
        if let Err(error) = self.clear_path(path) {
            warn!(path = %path.display(), error = %Chain(&error), "no regular file in place of the lock file, and it could not be moved");
        }
        self.open(path, Mode::OpenOrCreate).or_else(|error| match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem => self.open(path, Mode::Read),
            _ => Err(error),
        })
    }

    /// The first bytes of a file, at most `max`.
    pub(crate) fn read_prefix(&self, path: &Path, max: usize) -> io::Result<Vec<u8>> {
        read(&*self.open(path, Mode::Read)?, max)
    }

    /// All bytes of a file.
    pub(crate) fn read_all(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, Mode::Read)?;
        read(&*file, usize::try_from(file.stat()?.bytes).unwrap_or(usize::MAX))
    }
}

fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{name}.{}.tmp", Uuid::new_v4().simple()))
}

fn is_temporary(found: &Path, path: &Path) -> bool {
    let random = || {
        let rest = found.file_name()?.to_str()?.strip_prefix(path.file_name()?.to_str()?)?;
        let random = rest.strip_prefix('.')?.strip_suffix(".tmp")?;
        Some(random.len() == 32 && Uuid::try_parse(random).is_ok())
    };
    found == path.with_extension("tmp") || random() == Some(true)
}

fn read(file: &dyn Handle, max: usize) -> io::Result<Vec<u8>> {
    let (mut bytes, mut done) = (vec![0; max], 0);
    while done < max {
        match file.read_at(&mut bytes[done..], done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// Restores missing permissions of the owner. Whether any were missing.
fn restore_permissions(path: &Path, needed: u32) -> bool {
    let Ok(metadata) = fs::metadata(path) else { return false };
    let mode = metadata.permissions().mode();
    if mode & needed == needed {
        return false;
    }
    let restored = fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777 | needed)).is_ok();
    if restored {
        warn!(path = %path.display(), mode = format!("{:o}", mode & 0o7777), "permissions of the owner were missing; restored");
    }
    restored
}

/// The file system of the machine.
#[derive(Debug)]
struct RealFiles {
    /// Whether missing permissions of the owner are restored.
    repairs_permissions: bool,
}

impl Files for RealFiles {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<OpenFile> {
        let mut options = OpenOptions::new();
        options.mode(files::file_mode()).read(mode != Mode::CreateNew).write(mode != Mode::Read);
        options.create(mode == Mode::OpenOrCreate).create_new(mode == Mode::CreateNew);
        // Opening a pipe would block for ever; a link could lead anywhere.
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed());
        let file = match options.open(path) {
            Err(_) if path.is_symlink() => {
                return Err(io::Error::other("it is a symbolic link, which is not followed"));
            }
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied
                    && self.repairs_permissions
                    && restore_permissions(path, files::FILE_MODE) =>
            {
                options.open(path)?
            }
            opened => opened?,
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        if matches!(mode, Mode::OpenOrCreate | Mode::CreateNew) {
            files::give_to_owner_of_directory(&file, path)?;
        }
        Ok(Box::new(file))
    }

    fn open_dir(&self, dir: &Path) -> io::Result<OpenFile> {
        Ok(Box::new(File::open(dir)?))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(files::dir_mode()).create(dir)?;
        restore_permissions(dir, files::DIR_MODE);
        File::open(dir).map_or(Ok(()), |made| files::give_to_owner_of_directory(&made, dir))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(PathBuf, Stat)>> {
        let mut list = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) => list.push((entry.path(), stat(&metadata))),
                // Removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(list)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        fs::symlink_metadata(path).map(|metadata| stat(&metadata))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

impl Handle for File {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, at)
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, at)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        File::set_len(self, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn stat(&self) -> io::Result<Stat> {
        self.metadata().map(|metadata| stat(&metadata))
    }

    fn try_lock(&self) -> Result<(), TryLockError> {
        File::try_lock(self)
    }

    fn advise_read(&self) {
        let _ = rustix::fs::fadvise(self, 0, None, rustix::fs::Advice::WillNeed);
    }
}

fn stat(metadata: &fs::Metadata) -> Stat {
    Stat {
        bytes: metadata.len(),
        is_file: metadata.is_file(),
        id: (metadata.dev(), metadata.ino()),
        modified: metadata.mtime() * 1_000_000 + metadata.mtime_nsec() / 1_000,
    }
}
