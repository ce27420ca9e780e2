//! The few operations on files that must not go wrong silently, in one place; tests make them fail here.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Where files are made. A value, so that tests can hand in one that fails.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) faults: std::sync::Arc<super::tests::Faults>,
}

impl Disk {
    /// A new file that nobody else may read; an existing one is an error.
    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        #[cfg(test)]
        self.faults.create()?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(file)
    }

    /// All bytes, behind what is there.
    pub(crate) fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        let (bytes, fault) = self.faults.write(bytes);
        let mut target = file;
        target.write_all(bytes)?;
        #[cfg(test)]
        fault?;
        Ok(())
    }

    /// Makes the bytes durable. A segment that somebody has deleted meanwhile would keep them for nobody: that is a failure.
    pub(crate) fn sync(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        self.faults.sync()?;
        file.sync_data()?;
        if file.metadata()?.nlink() == 0 {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the file was deleted while it was written"));
        }
        Ok(())
    }

    /// Replaces a small file: written, synced, renamed, the directory synced.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        remove(&temporary)?;
        let file = self.create(&temporary)?;
        self.write(&file, bytes)?;
        self.sync(&file)?;
        fs::rename(&temporary, path)?;
        sync_dir(path.parent().unwrap_or(Path::new(".")))
    }
}

/// Makes created, renamed and removed names durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A directory that only we may enter, with what is missing above it.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Removes a file that may be gone already.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
