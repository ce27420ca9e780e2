//! The pause that survives a restart: `pause.json`, replaced as a whole.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{spool::disk::Disk, units::Micros};

/// Its name in the state directory.
pub const PAUSE_FILE: &str = "pause.json";

/// A pause in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pause {
    /// When it began.
    pub(super) since: Micros,
    /// When it ends by itself.
    pub(super) until: Micros,
    /// Records below this offset are written all the same.
    pub(super) after: u64,
}

/// The file.
#[derive(Clone, Debug)]
pub(super) struct PauseFile(PathBuf);

impl PauseFile {
    pub(super) fn in_dir(dir: &Path) -> Self {
        Self(dir.join(PAUSE_FILE))
    }

    /// The pause that was in force, if any. A file that cannot be read is no pause: writing on loses nothing.
    pub(super) fn load(&self) -> Option<Pause> {
        let disk = Disk::default();
        disk.remove_leftovers(&self.0);
        serde_json::from_slice(&disk.read_all(&self.0).ok()?).ok()
    }

    /// Keeps the pause, or its end.
    pub(super) fn store(&self, pause: Option<Pause>) -> io::Result<()> {
        let dir = self.0.parent().unwrap_or(Path::new("."));
        match pause {
            Some(pause) => Disk::default().replace(&self.0, &serde_json::to_vec(&pause)?),
            None => match fs::remove_file(&self.0) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => File::open(dir)?.sync_all(),
            },
        }
    }
}
