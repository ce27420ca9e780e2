//! Bytes that are no records any more, kept for a person to look at.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tracing::warn;

use super::{disk, scan::Scan};
use crate::logging::Chain;

/// What all files together may take; more is not kept.
const MAX: u64 = 64 << 20;

#[derive(Debug)]
pub(crate) struct Quarantine(PathBuf);

impl Quarantine {
    pub(crate) fn new(spool: &Path) -> Self {
        Self(spool.join("quarantine"))
    }

    /// Bytes kept so far.
    pub(crate) fn bytes(&self) -> u64 {
        let Ok(entries) = fs::read_dir(&self.0) else { return 0 };
        entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
    }

    /// Takes over a whole file.
    pub(crate) fn take(&self, path: &Path) -> std::io::Result<()> {
        disk::create_dir(&self.0)?;
        fs::rename(path, self.0.join(path.file_name().unwrap_or_default()))
    }

    /// Keeps bytes `from..to` of the scanned file, named by their place, so that a second reading keeps them once. Best effort:
    /// the log says what could not be kept, and nothing stops for it.
    pub(crate) fn keep(&self, scan: &Scan, from: u64, to: u64) {
        let segment = scan.path.file_stem().map(|name| name.to_string_lossy()).unwrap_or_default();
        let path = self.0.join(format!("{segment}-{from:010}.bin"));
        if path.exists() {
            return;
        }
        let room = MAX.saturating_sub(self.bytes());
        let length = usize::try_from((to - from).min(room)).unwrap_or(usize::MAX);
        let kept = disk::create_dir(&self.0).and_then(|()| scan.read(from, length)).and_then(|bytes| {
            use std::os::unix::fs::OpenOptionsExt;
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&path)?;
            std::io::Write::write_all(&mut file, &bytes)
        });
        if let Err(error) = kept {
            warn!(path = %path.display(), error = %Chain(&error), "damaged bytes could not be kept");
        }
    }
}
