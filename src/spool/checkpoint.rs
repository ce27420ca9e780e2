//! The committed offset, in a file of its own.

use std::{
    io,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{
    disk::{Disk, Mode},
    segment::{HEADER, Header},
};

const MAGIC: [u8; 8] = *b"CASCHECK";

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checkpoint {
    /// Everything below the offset is stored.
    Good { id: Uuid, committed: u64 },
    /// There is none.
    Missing,
    /// It cannot be believed.
    Bad,
    /// A newer version of the program wrote it.
    Newer(u32),
}

pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("checkpoint")
}

pub(crate) fn read(disk: &Disk, dir: &Path) -> io::Result<Checkpoint> {
    let bytes = match disk.beginning(&path(dir), HEADER) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Checkpoint::Missing),
        bytes => bytes?,
    };
    Ok(match Header::decode(MAGIC, &bytes) {
        Header::Good { id, offset } => Checkpoint::Good { id, committed: offset },
        Header::Newer(version) => Checkpoint::Newer(version),
        Header::Bad(_) => Checkpoint::Bad,
    })
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
        let file = disk.open(&path, Mode::Change).map_err(|_| error)?;
        file.write_all_at(&bytes, 0)?;
        file.sync()
    })
}
