//! Damaged bytes and unreadable segments, kept for inspection.

use std::{
    io,
    path::{Path, PathBuf},
};

use tracing::warn;

use super::{
    disk::{Disk, Mode},
    scan::Scan,
};
use crate::logging::Chain;

/// Its name in the spool's directory.
pub const NAME: &str = "quarantine";
/// Total size of the damaged pieces; more is not kept. Whole segments are moved here and need no additional room.
const MAX_BYTES: u64 = 64 << 20;

/// How the names of damaged pieces end.
const PIECE_EXTENSION: &str = "bin";

#[derive(Debug)]
pub(crate) struct Quarantine {
    disk: Disk,
    dir: PathBuf,
}

impl Quarantine {
    pub(crate) fn new(disk: &Disk, spool: &Path) -> Self {
        Self { disk: disk.clone(), dir: spool.join(NAME) }
    }

    /// Bytes kept so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.count(|_| true)
    }

    fn count(&self, counts: impl Fn(&Path) -> bool) -> u64 {
        let entries = self.disk.list(&self.dir).unwrap_or_default();
        entries.iter().filter(|(path, _)| counts(path)).map(|(_, stat)| stat.bytes).sum()
    }

    /// Takes over a whole file.
    pub(crate) fn take(&self, path: &Path) -> io::Result<()> {
        self.ensure_dir()?;
        self.disk.move_to(path, &self.dir.join(path.file_name().unwrap_or_default())).map(drop)
    }

    /// Creates the directory; a file of its name is moved aside.
    fn ensure_dir(&self) -> io::Result<()> {
        self.disk.create_dir(&self.dir).or_else(|error| match self.disk.stat(&self.dir) {
            Ok(stat) if stat.is_file => {
                self.disk.move_to(&self.dir, &self.dir)?;
                self.disk.create_dir(&self.dir)
            }
            _ => Err(error),
        })
    }

    /// Moves a file here that has the name of a segment and is no segment of this spool.
    pub(crate) fn take_foreign(&self, path: &Path) {
        match self.take(path) {
            Ok(()) => {
                warn!(path = %path.display(), "file has the name of a segment and none of its records; moved to quarantine")
            }
            Err(error) => {
                warn!(path = %path.display(), error = %Chain(&error), "file has the name of a segment and none of its records; ignored");
            }
        }
    }

    /// Keeps bytes `from..to` of the scanned file, named by their place, so that a second reading keeps them once. Best effort:
    /// failures are logged only.
    pub(crate) fn keep(&self, scan: &Scan, from: u64, to: u64) {
        let segment = scan.path.file_stem().map(|name| name.to_string_lossy()).unwrap_or_default();
        let path = self.dir.join(format!("{segment}-{from:010}.{PIECE_EXTENSION}"));
        if self.disk.stat(&path).is_ok() {
            return;
        }
        let room = MAX_BYTES
            .saturating_sub(self.count(|path| path.extension().is_some_and(|extension| extension == PIECE_EXTENSION)));
        let (all, kept) = (to - from, (to - from).min(room));
        if kept < all {
            warn!(path = %path.display(), all, kept, "quarantine is full; not all damaged bytes are kept");
        }
        let length = usize::try_from(kept).unwrap_or(usize::MAX);
        let kept = self.ensure_dir().and_then(|()| scan.read(from, length)).and_then(|bytes| {
            let file = self.disk.open(&path, Mode::CreateNew)?;
            file.write_all_at(&bytes, 0)?;
            // The original may be cut next.
            file.sync()?;
            self.disk.sync_dir(&self.dir)
        });
        if let Err(error) = kept {
            warn!(path = %path.display(), error = %Chain(&error), "damaged bytes could not be kept");
        }
    }
}
