//! Every operation on files that the spool makes passes through here.
//!
//! [`Disk`] is a handle to a [`Files`]: the real file system, or in `tests/faults` one in memory that forgets at a crash what was
//! not synced, fills up, turns read-only and fails. One virtual call per operation, which is one per group and per 256 KiB read.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::units::Micros;

/// What the spool needs of a file system. Paths and errors are as in `std::fs`.
pub(crate) trait Files: fmt::Debug + Send + Sync {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<OpenFile>;
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
    fn read_soon(&self) {}
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// To read.
    Read,
    /// To read and change one that exists.
    Change,
    /// The same; one that does not exist is made, and only we may read it.
    Keep,
    /// To write a new one that only we may read; one that exists is an error.
    New,
}

/// What is known about a file without reading it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) bytes: u64,
    /// Whether it is a regular file (a link is none).
    pub(crate) is_file: bool,
    /// Names that it has.
    pub(crate) links: u64,
    pub(crate) modified: Micros,
}

/// Where files are made. A value, so that tests can hand in one that fails. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    files: Arc<dyn Files>,
    #[cfg(test)]
    pub(crate) faults: Arc<super::tests::Faults>,
}

impl Default for Disk {
    fn default() -> Self {
        Self::new(Arc::new(Real))
    }
}

impl std::ops::Deref for Disk {
    type Target = dyn Files;

    fn deref(&self) -> &(dyn Files + 'static) {
        &*self.files
    }
}

impl Disk {
    pub(crate) fn new(files: Arc<dyn Files>) -> Self {
        Self {
            files,
            #[cfg(test)]
            faults: Arc::default(),
        }
    }

    /// A new file that nobody else may read; an existing one is an error.
    pub(crate) fn create(&self, path: &Path) -> io::Result<OpenFile> {
        #[cfg(test)]
        self.faults.create()?;
        self.open(path, Mode::New)
    }

    /// All bytes, behind the first `at`.
    pub(crate) fn write(&self, file: &dyn Handle, bytes: &[u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        let (bytes, fault) = self.faults.write(bytes);
        file.write_all_at(bytes, at)?;
        #[cfg(test)]
        fault?;
        Ok(())
    }

    /// Makes the bytes durable. A segment that somebody has deleted meanwhile would keep them for nobody: that is a failure.
    pub(crate) fn sync(&self, file: &dyn Handle) -> io::Result<()> {
        #[cfg(test)]
        self.faults.sync()?;
        file.sync()?;
        if file.stat()?.links == 0 {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the file was deleted while it was written"));
        }
        Ok(())
    }

    /// Replaces a small file: written, synced, renamed, the directory synced.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        self.discard(&temporary)?;
        let file = self.create(&temporary)?;
        let written = self.write(&*file, bytes, 0).and_then(|()| self.sync(&*file));
        if let Err(error) = written.and_then(|()| self.rename(&temporary, path)) {
            // On a full disk it takes room that is needed.
            let _ = self.discard(&temporary);
            return Err(error);
        }
        self.sync_dir(path.parent().unwrap_or(Path::new(".")))
    }

    /// Removes a file that may be gone already.
    pub(crate) fn discard(&self, path: &Path) -> io::Result<()> {
        match self.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The first bytes of a file, at most `max`.
    pub(crate) fn beginning(&self, path: &Path, max: usize) -> io::Result<Vec<u8>> {
        let file = self.open(path, Mode::Read)?;
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
}

/// The file system of the machine.
#[derive(Debug)]
struct Real;

impl Files for Real {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<OpenFile> {
        let mut options = OpenOptions::new();
        options.mode(0o600).read(mode != Mode::New).write(mode != Mode::Read);
        options.create(mode == Mode::Keep).create_new(mode == Mode::New);
        Ok(Box::new(options.open(path)?))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)
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

    fn read_soon(&self) {
        let _ = rustix::fs::fadvise(self, 0, None, rustix::fs::Advice::WillNeed);
    }
}

fn stat(metadata: &fs::Metadata) -> Stat {
    Stat {
        bytes: metadata.len(),
        is_file: metadata.is_file(),
        links: metadata.nlink(),
        modified: metadata.mtime() * 1_000_000 + metadata.mtime_nsec() / 1_000,
    }
}
