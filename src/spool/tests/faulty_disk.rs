//! A disk that fails as it is told.

use std::{
    fs::TryLockError,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::spool::disk::{Disk, Files, Handle, Mode, OpenFile, Stat};

/// Makes operations on files fail.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// No file can be made, as on a read-only disk.
    pub(crate) read_only: AtomicBool,
    /// Every write is cut in half and fails.
    pub(crate) full: AtomicBool,
    /// So many syncs fail.
    pub(crate) syncs: AtomicU64,
}

/// A disk that can fail, and what fails on it.
pub(crate) fn faulty_disk() -> (Disk, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    (Disk::new(Arc::new(FaultyFiles { real: Disk::default(), faults: Arc::clone(&faults) })), faults)
}

/// Real files. Writes fail in new files only: one that exists has its room.
#[derive(Debug)]
struct FaultyFiles {
    real: Disk,
    faults: Arc<Faults>,
}

#[derive(Debug)]
struct FaultyFile {
    real: OpenFile,
    is_new: bool,
    faults: Arc<Faults>,
}

impl Files for FaultyFiles {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<OpenFile> {
        let is_new = mode == Mode::CreateNew;
        if is_new && self.faults.read_only.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let real = self.real.open(path, mode)?;
        Ok(Box::new(FaultyFile { real, is_new, faults: Arc::clone(&self.faults) }))
    }

    fn open_dir(&self, dir: &Path) -> io::Result<OpenFile> {
        self.real.open_dir(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.real.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.real.sync_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(PathBuf, Stat)>> {
        self.real.list(dir)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.real.stat(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.real.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.real.remove(path)
    }
}

impl Handle for FaultyFile {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        self.real.read_at(bytes, at)
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        if self.is_new && self.faults.full.load(Ordering::SeqCst) {
            self.real.write_all_at(&bytes[..bytes.len() / 2], at)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.real.write_all_at(bytes, at)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.real.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let left = &self.faults.syncs;
        if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.real.sync()
    }

    fn stat(&self) -> io::Result<Stat> {
        self.real.stat()
    }

    fn try_lock(&self) -> Result<(), TryLockError> {
        self.real.try_lock()
    }
}
