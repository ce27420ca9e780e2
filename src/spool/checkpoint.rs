//! The committed offset, in a file of its own.

use std::{
    io,
    path::{Path, PathBuf},
};

use tracing::warn;
use uuid::Uuid;

use super::{
    disk::{Disk, Mode},
    segment::{HEADER, Header},
};
use crate::logging::Chain;

const MAGIC: [u8; 8] = *b"CASCHECK";

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checkpoint {
    /// Everything below the offset is stored.
    Good { id: Uuid, committed: u64 },
    /// There is none.
    Missing,
    /// It cannot be read or believed.
    Bad,
    /// A newer version of the program wrote it.
    Newer(u32),
}

pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("checkpoint")
}

/// Never fails: to replay everything is always right.
pub(crate) fn read(disk: &Disk, dir: &Path) -> Checkpoint {
    let path = path(dir);
    let bytes = match disk.read_prefix(&path, HEADER) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Checkpoint::Missing,
        Err(error) => {
            warn!(path = %path.display(), error = %Chain(&error), "checkpoint cannot be read");
            return Checkpoint::Bad;
        }
    };
    match Header::decode(MAGIC, &bytes) {
        Header::Good { id, offset } => Checkpoint::Good { id, committed: offset },
        Header::Newer(version) => Checkpoint::Newer(version),
        Header::Bad(_) => Checkpoint::Bad,
    }
}

/// Replaces the checkpoint. When a full disk has no room for a second file, the one that exists is overwritten: it lies within one
/// sector, and one that is torn nevertheless replays everything. Without this a disk that we have filled could never be emptied.
pub(crate) fn write(disk: &Disk, dir: &Path, id: Uuid, committed: u64) -> io::Result<()> {
    let bytes: [u8; HEADER] = Header::encode(MAGIC, id, committed);
    let path = path(dir);
    disk.replace(&path, &bytes).or_else(|error| {
        if error.kind() != io::ErrorKind::StorageFull && error.kind() != io::ErrorKind::QuotaExceeded {
            return Err(error);
        }
        let file = disk.open(&path, Mode::ReadWrite).map_err(|_| error)?;
        file.write_all_at(&bytes, 0)?;
        file.sync()
    })
}
