//! Segment files: their header and names, the list of those that exist, and the one that is being written.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use super::disk::{Disk, Mode, OpenFile};

pub(crate) const MAGIC: [u8; 8] = *b"CASSPOOL";
/// The only format there is so far.
pub(crate) const VERSION: u32 = 1;
/// `magic | version | id | first offset | crc32c`.
pub(crate) const HEADER: usize = 40;

/// The header of a segment; a checkpoint has the same layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// Valid, of the known format.
    Good { id: Uuid, offset: u64 },
    /// Written by a newer version of the program.
    Newer(u32),
    /// Damaged; the id that it claims may still be right.
    Bad(Option<Uuid>),
}

impl Header {
    pub(crate) fn encode(magic: [u8; 8], id: Uuid, offset: u64) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&magic);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..28].copy_from_slice(id.as_bytes());
        bytes[28..36].copy_from_slice(&offset.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// A version is believed only when the checksum matches: a flipped bit must not look like a newer format.
    pub(crate) fn decode(magic: [u8; 8], bytes: &[u8]) -> Self {
        let Some(bytes) = bytes.first_chunk::<HEADER>() else { return Self::Bad(None) };
        let id = Uuid::from_slice(&bytes[12..28]).unwrap_or_default();
        if bytes[..8] != magic || crc32c::crc32c(&bytes[..36]).to_le_bytes() != bytes[36..] {
            return Self::Bad(Some(id));
        }
        match u32::from_le_bytes(std::array::from_fn(|at| bytes[8 + at])) {
            VERSION => Self::Good { id, offset: u64::from_le_bytes(std::array::from_fn(|at| bytes[28 + at])) },
            version => Self::Newer(version),
        }
    }

    /// The header of a segment file.
    pub(crate) fn read(disk: &Disk, path: &Path) -> io::Result<Self> {
        disk.read_prefix(path, HEADER).map(|bytes| Self::decode(MAGIC, &bytes))
    }
}

/// A segment, as far as its name and size tell.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    /// Offset of its first record.
    pub(crate) first: u64,
    /// Tells apart two segments that begin at the same offset: the later one counts.
    pub(crate) generation: u32,
    /// Offset after its last record; for an older segment the beginning of the next.
    pub(crate) end: u64,
    /// Bytes that may be read.
    pub(crate) bytes: u64,
    /// Whether it is being written.
    pub(crate) active: bool,
    pub(crate) path: PathBuf,
}

/// Segments in order of their offsets.
#[derive(Debug, Default)]
pub(crate) struct Segments(Mutex<Vec<Meta>>);

impl Segments {
    pub(crate) fn new(list: Vec<Meta>) -> Self {
        Self(Mutex::new(list))
    }

    /// The list. A panic elsewhere leaves it whole: every change is one push, pop or assignment.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<Meta>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.lock().iter().map(|meta| meta.bytes).sum()
    }

    /// The segment that holds `offset`, or else the first one behind it; and the segment behind that.
    pub(crate) fn find(&self, offset: u64) -> Option<(Meta, Option<Meta>)> {
        let list = self.lock();
        let index = list.partition_point(|meta| meta.first <= offset).saturating_sub(1);
        let mut rest = list[index..].iter().skip_while(|meta| meta.end <= offset).cloned();
        Some((rest.next()?, rest.next()))
    }

    /// The current state of one segment, and the offset at which the next one begins.
    pub(crate) fn get(&self, path: &Path) -> Option<(Meta, u64)> {
        let list = self.lock();
        let mut rest = list.iter().skip_while(|meta| meta.path != path);
        Some((rest.next()?.clone(), rest.next().map_or(u64::MAX, |next| next.first)))
    }

    pub(crate) fn forget(&self, path: &Path) {
        self.lock().retain(|meta| meta.path != path);
    }

    /// Removes an entry; the segment in front of it now reaches to the one behind it.
    pub(crate) fn unlink_entry(&self, path: &Path) {
        let mut list = self.lock();
        if let Some(index) = list.iter().position(|meta| meta.path == path) {
            let end = list.remove(index).end;
            if let Some(before) = index.checked_sub(1) {
                list[before].end = end;
            }
        }
    }

    fn update(&self, path: &Path, change: impl FnOnce(&mut Meta)) {
        if let Some(meta) = self.lock().iter_mut().rev().find(|meta| meta.path == path) {
            change(meta);
        }
    }
}

/// The segments of a directory; the end of the last one is not known yet. Files with other names are ignored.
pub(crate) fn list(disk: &Disk, dir: &Path) -> io::Result<Vec<Meta>> {
    let mut list = Vec::new();
    for (path, stat) in disk.list(dir)? {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(parse_name);
        let Some((first, generation)) = name.filter(|_| stat.is_file) else { continue };
        list.push(Meta { first, generation, end: u64::MAX, bytes: stat.bytes, active: false, path });
    }
    list.sort_unstable_by_key(|meta| (meta.first, meta.generation));
    for index in 1..list.len() {
        list[index - 1].end = list[index].first;
    }
    Ok(list)
}

fn parse_name(name: &str) -> Option<(u64, u32)> {
    let (first, generation) = name.strip_suffix(".seg")?.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (first.len() == 20 && digits(first) && digits(generation)).then_some(())?;
    Some((first.parse().ok()?, generation.parse().ok()?))
}

/// The sum of the lengths.
pub(crate) fn length(parts: &[&[u8]]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

/// Writes groups of records to the end of a list of segments.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    dir: PathBuf,
    id: Uuid,
    limit: u64,
    disk: Disk,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    file: OpenFile,
    path: PathBuf,
    /// Bytes that are synced, with the header.
    synced: u64,
    /// Bytes that are written.
    written: u64,
    /// Offset after the last record that is written.
    end: u64,
    /// Whether it holds no synced record.
    empty: bool,
}

impl SegmentWriter {
    pub(crate) fn new(dir: PathBuf, id: Uuid, limit: u64, disk: Disk) -> Self {
        Self { dir, id, limit, disk, current: None }
    }

    /// Whether so many bytes can be written without beginning a segment. What is written and not synced must be synced before.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.written == HEADER as u64 || current.written + bytes <= self.limit)
    }

    /// Appends the records `first..end` and makes them durable. After an error none of them counts.
    pub(crate) fn write(&mut self, segments: &Segments, parts: &[&[u8]], first: u64, end: u64) -> io::Result<()> {
        self.append(segments, parts, first, end)?;
        self.sync(segments)
    }

    /// Writes the records `first..end`, the bytes of which are these parts, with one write a part. They count once they are synced.
    /// After an error nothing counts that was written since the last [`sync`](Self::sync), and the file is never written again.
    pub(crate) fn append(&mut self, segments: &Segments, parts: &[&[u8]], first: u64, end: u64) -> io::Result<()> {
        if !self.has_room(length(parts)) {
            self.finish(segments);
        }
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.begin(segments, first)?,
        };
        for part in parts {
            if let Err(error) = current.file.write_all_at(part, current.written) {
                self.abandon(segments, &current);
                return Err(error);
            }
            current.written += part.len() as u64;
        }
        current.end = end;
        self.current = Some(current);
        Ok(())
    }

    /// Makes durable, and shows to readers, what is written. After an error the file is never written again: the kernel may have
    /// dropped the pages that it could not write, so that a second sync would falsely succeed.
    pub(crate) fn sync(&mut self, segments: &Segments) -> io::Result<()> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        if let Err(error) = self.disk.sync(&*current.file, &current.path) {
            self.abandon(segments, &current);
            return Err(error);
        }
        current.synced = current.written;
        current.empty = false;
        segments.update(&current.path, |meta| (meta.bytes, meta.end) = (current.synced, current.end));
        self.current = Some(current);
        Ok(())
    }

    /// Closes the segment, everything in which is synced; the next write begins another.
    pub(crate) fn finish(&mut self, segments: &Segments) {
        if let Some(current) = self.current.take() {
            debug_assert_eq!(current.synced, current.written, "a closed segment is never synced again");
            segments.update(&current.path, |meta| meta.active = false);
        }
    }

    fn begin(&self, segments: &Segments, first: u64) -> io::Result<Current> {
        let (file, generation, path) = self.create(first)?;
        let header = Header::encode(MAGIC, self.id, first);
        if let Err(error) = file.write_all_at(&header, 0).and_then(|()| self.disk.sync_dir(&self.dir)) {
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        let bytes = HEADER as u64;
        let meta = Meta { first, generation, end: first, bytes, active: true, path: path.clone() };
        segments.lock().push(meta);
        Ok(Current { file, path, synced: bytes, written: bytes, end: first, empty: true })
    }

    /// A name that is taken belongs to a segment that failed and could not be removed.
    fn create(&self, first: u64) -> io::Result<(OpenFile, u32, PathBuf)> {
        let (mut generation, mut made) = (0, false);
        loop {
            let path = self.dir.join(format!("{first:020}-{generation:03}.seg"));
            match self.disk.open(&path, Mode::CreateNew) {
                Ok(file) => return Ok((file, generation, path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && generation < 999 => generation += 1,
                // The directory is gone, or its permissions are.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) && !made =>
                {
                    self.disk.create_dir(&self.dir)?;
                    made = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Best effort: a tail that cannot be cut now is cut at the next start, or ignored because the next segment overlaps it.
    fn abandon(&self, segments: &Segments, current: &Current) {
        if current.empty {
            segments.forget(&current.path);
            let _ = self.disk.remove(&current.path);
        } else {
            let _ = current.file.set_len(current.synced);
            segments.update(&current.path, |meta| meta.active = false);
        }
    }
}
