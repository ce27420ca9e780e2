//! What the spool promises, rule by rule.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

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

impl Faults {
    pub(crate) fn create(&self) -> io::Result<()> {
        if self.read_only.load(Ordering::SeqCst) { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    pub(crate) fn write<'a>(&self, bytes: &'a [u8]) -> (&'a [u8], io::Result<()>) {
        if self.full.load(Ordering::SeqCst) {
            return (&bytes[..bytes.len() / 2], Err(io::ErrorKind::StorageFull.into()));
        }
        (bytes, Ok(()))
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        let failed = self.syncs.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if failed { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
}
