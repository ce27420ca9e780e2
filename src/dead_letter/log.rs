//! The log of dead letters: the end that they are put into.

use std::{
    collections::{HashSet, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, TryLockError},
    time::SystemTime,
};

use serde::de::IgnoredAny;
use tracing::{error, warn};

use super::{
    Config, DeadLetterError, Key, NewDeadLetter, Origin,
    dropped::{self, DropIndex},
    for_each_in_segment, identify,
};
use crate::{
    logging::Chain,
    metrics::Metrics,
    spool::{
        NewRecord,
        disk::{Disk, Mode, OpenFile},
        record,
        segment::{self, Meta, SegmentWriter, Segments},
    },
};

/// Size of a segment: the grain at which the oldest are dropped. A smaller capacity makes smaller ones.
const SEGMENT_BYTES: u64 = 16 << 20;
/// How many letters are remembered, so that a replay does not add them again: 64 bytes each.
const DEDUP_ENTRIES: usize = 65_536;
/// How many bytes are read for that at the start, about.
const DEDUP_READ_BYTES: u64 = 64 << 20;

/// Keeps dead letters. Shared; blocks while it writes.
#[derive(Debug)]
pub struct DeadLetterLog {
    inner: Mutex<Inner>,
    /// The last answer of [`usage`](Self::usage).
    last_usage: Mutex<Usage>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Inner {
    capacity: u64,
    seed: u32,
    disk: Disk,
    writer: SegmentWriter,
    segments: Segments,
    next: u64,
    dedup: DedupCache,
    dir: PathBuf,
    /// What a person has dropped, and when that was written down.
    drop_index: DropIndex<IgnoredAny>,
    drop_index_at: Option<SystemTime>,
    _lock: OpenFile,
}

/// How many letters there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Letters on disk that are not dropped.
    pub entries: u64,
    /// Bytes of the segments; those of dropped letters count until their segment goes.
    pub bytes: u64,
    /// Bytes beyond which the oldest make room.
    pub capacity: u64,
}

/// The newest keys.
#[derive(Debug, Default)]
struct DedupCache {
    set: HashSet<Key>,
    order: VecDeque<Key>,
}

impl DedupCache {
    fn insert(&mut self, key: Key) {
        if self.set.insert(key) {
            self.order.push_back(key);
        }
        if self.order.len() > DEDUP_ENTRIES
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
    }
}

impl DeadLetterLog {
    /// Opens the letters in `config.dir`, made if it is not there, and reads the newest to remember where they came from.
    ///
    /// # Errors
    /// When the directory cannot be used, is in use, or holds a newer format.
    pub fn open(config: &Config, metrics: Arc<Metrics>) -> Result<Self, DeadLetterError> {
        Self::open_on(config, metrics, Disk::default())
    }

    pub(super) fn open_on(config: &Config, metrics: Arc<Metrics>, disk: Disk) -> Result<Self, DeadLetterError> {
        let dir = config.dir.clone();
        let failed = |error| DeadLetterError::Open { dir: dir.clone(), error };
        disk.create_dir(&dir).map_err(failed)?;
        let lock = lock(&disk, &dir)?;
        let mut list = segment::list(&disk, &dir).map_err(failed)?;
        let id = identify(&list)?;
        let (next, dedup) = load_dedup_cache(&disk, &dir, &mut list, record::seed(id));
        let capacity = config.capacity.0;
        let mut inner = Inner {
            capacity,
            seed: record::seed(id),
            writer: SegmentWriter::new(dir.clone(), id, SEGMENT_BYTES.min(capacity / 4).max(1), disk.clone()),
            disk,
            segments: Segments::new(list),
            next,
            dedup,
            drop_index: DropIndex::default(),
            drop_index_at: None,
            dir,
            _lock: lock,
        };
        inner.reload_drop_index();
        Ok(Self { last_usage: Mutex::new(inner.usage()), inner: Mutex::new(inner), metrics })
    }

    /// Keeps a letter: it is on disk when this returns `Ok`. One that is there already adds nothing.
    ///
    /// # Errors
    /// When the disk does not take it; nothing is kept then.
    pub fn put(&self, letter: &NewDeadLetter<'_>) -> Result<(), DeadLetterError> {
        self.put_all(std::slice::from_ref(letter))
    }

    /// Keeps several letters with one sync, all or, after an error, none. Blocks until they are on disk.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_all(&self, entries: &[NewDeadLetter<'_>]) -> Result<(), DeadLetterError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let first = inner.next;
        let mut bytes = Vec::new();
        let mut new = Vec::new();
        let mut keys = HashSet::new();
        for letter in entries {
            let rejected = &letter.rejected;
            let received_at = letter.decided.received_at;
            let origin = Origin { spool_id: letter.spool_id, offset: letter.offset, received_at };
            let key = origin.key(letter.channel, rejected.rejection.reason, letter.row, &rejected.hash);
            if inner.dedup.set.contains(&key) || !keys.insert(key) {
                continue;
            }
            encode(&mut bytes, inner.seed, first + new.len() as u64, letter)?;
            new.push((key, letter.rejected.rejection.reason));
        }
        if new.is_empty() {
            return Ok(());
        }
        let end = first + new.len() as u64;
        inner.make_room(bytes.len() as u64, &self.metrics);
        inner.write(&bytes, first, end)?;
        inner.next = inner.next.max(end);
        for (key, reason) in new {
            inner.dedup.insert(key);
            self.metrics.dead_letters.of(reason.as_str()).inc();
        }
        Ok(())
    }

    /// What is on disk. While a letter is being written, the last answer is repeated: a report does not wait for a disk.
    pub fn usage(&self) -> Usage {
        let mut last_usage = self.last_usage.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inner = match self.inner.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return *last_usage,
        };
        inner.reload_drop_index();
        *last_usage = inner.usage();
        *last_usage
    }
}

impl Inner {
    fn usage(&self) -> Usage {
        let entries = self.segments.lock().iter().map(|meta| self.drop_index.remaining(meta.first, meta.end)).sum();
        Usage { entries, bytes: self.segments.bytes(), capacity: self.capacity }
    }

    /// Another process may have dropped letters, and removed the segments that held nothing else: a moment after it has said so.
    fn reload_drop_index(&mut self) {
        let changed_at = dropped::changed_at(&self.dir);
        if changed_at != self.drop_index_at {
            self.drop_index_at = changed_at;
            match DropIndex::read(&self.dir) {
                Ok(drop_index) => self.drop_index = drop_index,
                Err(error) => warn!(error = %Chain(&error), "what was dropped of the dead letters cannot be read"),
            }
            // Where segments were lost the marks are what is left of their ids. Under one of those a new letter would be born
            // dropped, and go unseen.
            self.next = self.next.max(self.drop_index.end());
        }
        self.segments.lock().retain(|meta| meta.active || meta.path.try_exists().unwrap_or(true));
    }

    /// As in the spool: a failed file is left alone, and one more try goes to a new one.
    fn write(&mut self, bytes: &[u8], first: u64, end: u64) -> Result<(), DeadLetterError> {
        let Self { writer, segments, .. } = self;
        writer
            .write(segments, &[bytes], first, end)
            .or_else(|_| writer.write(segments, &[bytes], first, end))
            .map_err(DeadLetterError::Write)
    }

    /// Drops the oldest segments until `bytes` more fit; the newest letters are worth more than the capacity.
    fn make_room(&mut self, bytes: u64, metrics: &Metrics) {
        if self.segments.bytes() + bytes > self.capacity {
            self.reload_drop_index();
        }
        while self.segments.bytes() + bytes > self.capacity {
            let oldest = match self.segments.lock().first() {
                Some(meta) => meta.clone(),
                None => return,
            };
            if oldest.active {
                self.writer.finish(&self.segments);
            }
            if let Err(error) = self.disk.discard(&oldest.path) {
                warn!(segment = %oldest.path.display(), error = %Chain(&error), "dead letters could not be dropped");
                return;
            }
            self.segments.forget(&oldest.path);
            let dropped = self.drop_index.remaining(oldest.first, oldest.end);
            if dropped > 0 {
                metrics.dead_letters_dropped.inc_by(dropped);
                error!(dropped, "oldest dead letters were dropped to make room");
            }
        }
    }
}

fn encode(bytes: &mut Vec<u8>, seed: u32, id: u64, letter: &NewDeadLetter<'_>) -> Result<(), DeadLetterError> {
    let (offset, row, rejected) = (letter.offset.to_le_bytes(), letter.row.to_le_bytes(), letter.rejected.encode());
    let record = NewRecord {
        kind: letter.kind,
        decided: letter.decided,
        strict_json: false,
        from_stream: false,
        channel: letter.channel,
        preamble: &[letter.spool_id.as_bytes(), &offset[..], &row, &rejected].concat(),
        payload: letter.payload,
    };
    if record::size(&record) > record::MAX {
        return Err(DeadLetterError::TooLarge);
    }
    record::encode(bytes, seed, id, &record);
    Ok(())
}

/// Reads segments, newest first, until enough letters are remembered; returns the next id, too. A segment that cannot be read
/// only means that a replay may add its letters again.
///
/// A killed process may have left letters in the page cache only. One that is remembered is not written again, and its message may
/// leave the spool: so only what is certainly on disk is remembered.
fn load_dedup_cache(disk: &Disk, dir: &Path, list: &mut [Meta], seed: u32) -> (u64, DedupCache) {
    let names = disk.sync_dir(dir);
    if let Err(error) = &names {
        warn!(error = %Chain(error), "directory of the dead letters could not be synced; letters may be kept twice");
    }
    let mut next = list.last().map_or(0, |meta| meta.first);
    let mut segments: Vec<Vec<Key>> = Vec::new();
    let (mut count, mut bytes) = (0, 0);
    for meta in list.iter_mut().rev() {
        if count >= DEDUP_ENTRIES || bytes >= DEDUP_READ_BYTES {
            break;
        }
        bytes += meta.bytes;
        let (mut keys, mut end) = (Vec::new(), meta.first);
        let read = for_each_in_segment(meta, seed, &mut |key, info, _, _| {
            keys.push(key);
            end = end.max(info.id + 1);
        });
        if let Err(error) = read {
            warn!(segment = %meta.path.display(), error = %Chain(&error), "dead letters cannot be read");
            end = end.max(meta.first + meta.bytes / record::HEAD as u64);
        }
        if let Err(error) = disk.open(&meta.path, Mode::Read).and_then(|file| disk.sync(&*file, &meta.path)) {
            warn!(segment = %meta.path.display(), error = %Chain(&error), "dead letters could not be synced; they may be kept twice");
            keys.clear();
        }
        if meta.end == u64::MAX {
            meta.end = end;
        }
        next = next.max(end);
        count += keys.len();
        segments.push(keys);
    }
    let mut dedup = DedupCache::default();
    if names.is_err() {
        return (next, dedup);
    }
    segments.into_iter().rev().flatten().for_each(|key| dedup.insert(key));
    (next, dedup)
}

fn lock(disk: &Disk, dir: &Path) -> Result<OpenFile, DeadLetterError> {
    let failed = |error: io::Error| DeadLetterError::Open { dir: dir.to_owned(), error };
    let file = disk.open_lock(&dir.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(DeadLetterError::Locked { dir: dir.to_owned() }),
        Err(fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}
