//! The bytes of a backup.
//!
//! ```text
//! database     the SQLite file, from the first byte on; none with Cassandra
//! files        one behind the other
//! index        JSON: what the backup is, and where each file lies
//! trailer      magic "CASBCKUP" | version u32 | index at u64 | index bytes u64 | xxh3-128 of all bytes in front of the trailer
//!              | crc32c of the trailer u32
//! ```
//! Integers are little-endian. SQLite ignores what follows its last page, so that `sqlite3 BACKUP` reads the rows. The trailer is at
//! the end: a file that was cut short has none.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Component, Path},
};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::{spool::snapshot::OpenedFile, units::Micros};

/// The format that this program writes, and the newest that it reads.
pub(super) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"CASBCKUP";
const TRAILER: usize = 48;
/// Bytes that are copied at once.
const CHUNK: usize = 1 << 20;
/// An index that is larger is none of ours: some millions of files.
const INDEX_MAX: u64 = 1 << 28;

/// What a backup is, and where its files lie.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Index {
    /// Version of the program that made it.
    pub(super) program: String,
    pub(super) created_at: Micros,
    pub(super) instance: String,
    /// `sqlite` or `cassandra`.
    pub(super) store: String,
    /// Length of the database, which is at the beginning.
    pub(super) database_bytes: u64,
    /// Of the database.
    pub(super) schema_version: Option<i64>,
    pub(super) files: Vec<Entry>,
}

/// A file of the backup.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Entry {
    /// `spool/...`, `deadletter/...` or `state/...`.
    pub(super) path: String,
    pub(super) at: u64,
    pub(super) bytes: u64,
}

impl Entry {
    /// The place, and the path below it; `None` for a path that could leave its directory.
    pub(super) fn place(&self) -> Option<(&str, &Path)> {
        let (place, name) = self.path.split_once('/')?;
        let name = Path::new(name);
        let is_inside = name.components().all(|part| matches!(part, Component::Normal(_)));
        (is_inside && !name.as_os_str().is_empty()).then_some((place, name))
    }
}

/// Why a file cannot be read as a backup.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// The end is not that of a backup.
    NoTrailer,
    /// A newer program wrote it.
    Newer(u32),
    /// The bytes are not those that were written.
    Damaged,
    Io(io::Error),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes what follows the database.
pub(super) struct Writer<'a> {
    file: &'a File,
    at: u64,
    hash: Xxh3,
    chunk: Vec<u8>,
    progress: &'a mut dyn FnMut(u64),
}

impl<'a> Writer<'a> {
    /// Continues behind the database, which is read once for the checksum. `progress` gets the bytes that were read or written.
    pub(super) fn after_database(
        file: &'a File,
        database_bytes: u64,
        progress: &'a mut dyn FnMut(u64),
    ) -> io::Result<Self> {
        file.set_len(database_bytes)?;
        let mut writer = Self { file, at: 0, hash: Xxh3::new(), chunk: vec![0; CHUNK], progress };
        while writer.at < database_bytes {
            let wanted = usize::try_from(database_bytes - writer.at).unwrap_or(CHUNK).min(CHUNK);
            file.read_exact_at(&mut writer.chunk[..wanted], writer.at)?;
            writer.note(wanted);
        }
        writer.file.seek(SeekFrom::Start(database_bytes))?;
        Ok(writer)
    }

    fn note(&mut self, bytes: usize) {
        self.hash.update(&self.chunk[..bytes]);
        self.at += bytes as u64;
        (self.progress)(bytes as u64);
    }

    /// Adds a file. One that became shorter meanwhile ends there: its daemon cut what is no record.
    pub(super) fn add(&mut self, place: &str, opened: &OpenedFile) -> io::Result<Entry> {
        let (at, mut done) = (self.at, 0);
        while done < opened.bytes {
            let wanted = usize::try_from(opened.bytes - done).unwrap_or(CHUNK).min(CHUNK);
            let read = match opened.file.read_at(&mut self.chunk[..wanted], done) {
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            self.file.write_all(&self.chunk[..read])?;
            self.note(read);
            done += read as u64;
        }
        Ok(Entry { path: format!("{place}/{}", opened.name), at, bytes: done })
    }

    /// Writes index and trailer, and syncs the file. Returns its length.
    pub(super) fn finish(mut self, index: &Index) -> io::Result<u64> {
        let index_at = self.at;
        let json = serde_json::to_vec(index)?;
        self.file.write_all(&json)?;
        self.hash.update(&json);
        let mut trailer = Vec::with_capacity(TRAILER);
        trailer.extend_from_slice(&MAGIC);
        trailer.extend_from_slice(&VERSION.to_le_bytes());
        trailer.extend_from_slice(&index_at.to_le_bytes());
        trailer.extend_from_slice(&(json.len() as u64).to_le_bytes());
        trailer.extend_from_slice(&self.hash.digest128().to_le_bytes());
        trailer.extend_from_slice(&crc32c::crc32c(&trailer).to_le_bytes());
        self.file.write_all(&trailer)?;
        self.file.sync_all()?;
        Ok(index_at + (json.len() + TRAILER) as u64)
    }
}

/// An open backup.
#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    pub(super) index: Index,
    pub(super) bytes: u64,
    checksum: u128,
}

impl Archive {
    /// Reads trailer and index; the files are not looked at.
    pub(super) fn open(mut file: File) -> Result<Self, Unreadable> {
        let bytes = file.seek(SeekFrom::End(0))?;
        let trailer_at = bytes.checked_sub(TRAILER as u64).ok_or(Unreadable::NoTrailer)?;
        let mut trailer = [0; TRAILER];
        file.read_exact_at(&mut trailer, trailer_at)?;
        if trailer[..8] != MAGIC {
            return Err(Unreadable::NoTrailer);
        }
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| trailer[at + n]));
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|n| trailer[at + n]));
        // A flipped bit must not look like a newer format.
        if crc32c::crc32c(&trailer[..TRAILER - 4]) != word(TRAILER - 4) {
            return Err(Unreadable::Damaged);
        }
        if word(8) != VERSION {
            return Err(Unreadable::Newer(word(8)));
        }
        let (index_at, index_bytes) = (number(12), number(20));
        if index_bytes > INDEX_MAX || index_at.checked_add(index_bytes) != Some(trailer_at) {
            return Err(Unreadable::Damaged);
        }
        let mut json = vec![0; usize::try_from(index_bytes).map_err(|_| Unreadable::Damaged)?];
        file.read_exact_at(&mut json, index_at)?;
        let index: Index = serde_json::from_slice(&json).map_err(|_| Unreadable::Damaged)?;
        let is_inside = |entry: &Entry| entry.at.checked_add(entry.bytes).is_some_and(|end| end <= index_at);
        if index.database_bytes > index_at || !index.files.iter().all(is_inside) {
            return Err(Unreadable::Damaged);
        }
        let checksum = u128::from_le_bytes(std::array::from_fn(|at| trailer[28 + at]));
        Ok(Self { file, index, bytes, checksum })
    }

    /// Reads all bytes and compares the checksum.
    pub(super) fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<(), Unreadable> {
        let (mut hash, mut chunk) = (Xxh3::new(), vec![0; CHUNK]);
        let (mut at, end) = (0, self.bytes - TRAILER as u64);
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            self.file.read_exact_at(&mut chunk[..wanted], at)?;
            hash.update(&chunk[..wanted]);
            at += wanted as u64;
            progress(wanted as u64);
        }
        if hash.digest128() == self.checksum { Ok(()) } else { Err(Unreadable::Damaged) }
    }

    /// Writes a part of the backup into a new file, and syncs it.
    pub(super) fn extract(&self, at: u64, bytes: u64, mut to: File, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
        let (mut done, mut chunk) = (0, vec![0; CHUNK]);
        while done < bytes {
            let wanted = usize::try_from(bytes - done).unwrap_or(CHUNK).min(CHUNK);
            self.file.read_exact_at(&mut chunk[..wanted], at + done)?;
            to.write_all(&chunk[..wanted])?;
            done += wanted as u64;
            progress(wanted as u64);
        }
        to.sync_all()
    }
}
