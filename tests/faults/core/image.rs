//! A spool of known content, damaged copies of it, and the checks of what is read from one.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, LazyLock, atomic::Ordering},
    task::{Context, Poll, Waker},
};

use uuid::Uuid;

use crate::{
    event::Resolved,
    metrics::Metrics,
    random::Random,
    sim::Sim,
    spool::{
        Chunk, Config, NewRecord, Reader, RecordKind, SpoolError,
        commit::CheckpointThread,
        record,
        recovery::{self, Prepared},
        segment::HEADER,
    },
    units::ByteSize,
};

pub const DIR: &str = "/spool";
/// Shared: metrics are not under test, and a registry costs more than an open.
pub static METRICS: LazyLock<Arc<Metrics>> = LazyLock::new(Metrics::new);

pub fn config(segment: u64) -> Config {
    Config {
        dir: DIR.into(),
        segment: ByteSize(segment),
        capacity: ByteSize::mib(64),
        memory: ByteSize::mib(2),
        ..Config::default()
    }
}

pub fn open(sim: &Sim, config: &Config) -> Result<Prepared, SpoolError> {
    recovery::prepare(config, Arc::clone(&METRICS), sim.disk())
}

/// Records that the reader returns without waiting.
pub fn next(reader: &mut Reader) -> Option<Chunk> {
    match pin!(reader.next()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(chunk) => Some(chunk),
        Poll::Pending => None,
    }
}

use std::future::Future;

/// Fields that identify a record.
pub fn decided(uid: u64) -> Resolved {
    Resolved {
        run_id: Uuid::from_u64_pair(uid, !uid),
        event_time: uid as i64 * 3,
        received_at: 1_763_633_700_000_000 + uid as i64,
        has_event_time: uid.is_multiple_of(2),
        opened_run: uid.is_multiple_of(3),
    }
}

/// A unique payload.
pub fn payload(uid: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Random::new(uid).fill(&mut bytes);
    bytes
}

/// A spool with segments of about these sizes.
pub struct Original {
    pub sim: Sim,
    pub config: Config,
    /// Path and bytes of each segment.
    pub segments: Vec<(PathBuf, Vec<u8>)>,
    /// Segment and place of each record, by offset.
    pub places: Vec<(usize, Range<usize>)>,
    /// Copies without the content of one segment.
    without: Vec<Sim>,
}

impl Original {
    /// So many full segments of `bytes` each, filled to the last byte.
    pub fn new(seed: u64, segments: usize, bytes: usize) -> Self {
        let (sim, config) = (Sim::default(), config(bytes as u64));
        let mut spool = open(&sim, &config).unwrap();
        let mut random = Random::new(seed);
        for _ in 0..segments {
            let mut at = HEADER;
            while at < bytes {
                let uid = spool.appender.end();
                let channel = *random.pick(&["cascor:training", "t", ""]);
                let kind = *random.pick(&[RecordKind::Event, RecordKind::Gap, RecordKind::Control]);
                let least = record::HEAD + channel.len();
                let mut length = random.below(300);
                // The last one fills the segment.
                if bytes - at < least + length + least + 100 {
                    length = bytes - at - least;
                }
                let payload = payload(uid, length);
                let record = NewRecord {
                    kind,
                    decided: decided(uid),
                    strict_json: false,
                    from_stream: false,
                    channel,
                    preamble: b"",
                    payload: &payload,
                };
                spool.appender.append(&record).unwrap();
                assert!(spool.appender.sync().healthy);
                at += least + length;
            }
        }
        let end = spool.appender.end();
        drop(spool);
        let files: Vec<_> = sim.names(Path::new(DIR)).into_iter().filter(|path| path.extension().is_some()).collect();
        let segments: Vec<_> = files.into_iter().map(|path| (path.clone(), sim.get(&path).unwrap())).collect();
        let mut places = Vec::new();
        for (index, (_, content)) in segments.iter().enumerate() {
            assert_eq!(content.len(), bytes);
            let mut at = HEADER;
            while at < content.len() {
                let length = record::length(&content[at..]).unwrap();
                places.push((index, at..at + length));
                at += length;
            }
        }
        assert_eq!(places.len() as u64, end);
        let hollow = |path: &PathBuf| {
            let sim = sim.copy();
            sim.edit(path, Vec::clear);
            sim
        };
        let without = segments.iter().map(|(path, _)| hollow(path)).collect();
        Self { sim, config, segments, places, without }
    }

    /// A copy in which one segment has another content.
    pub fn with(&self, segment: usize, content: Vec<u8>) -> Sim {
        let sim = self.without[segment].copy();
        sim.edit(&self.segments[segment].0, |bytes| *bytes = content);
        sim
    }

    /// Offsets of records with unchanged bytes.
    pub fn intact(&self, segment: usize, content: &[u8]) -> Vec<bool> {
        let original = &self.segments[segment].1;
        let whole = |place: &Range<usize>| content.get(place.clone()) == Some(&original[place.clone()]);
        self.places.iter().map(|(index, place)| *index != segment || whole(place)).collect()
    }

    /// Opens a damaged copy, reads all of it and compares; returns the missing records and the bytes in quarantine.
    pub fn check(&self, sim: &Sim, intact: &[bool]) -> Outcome {
        let last = self.segments.len() - 1;
        let content = sim.get(&self.segments[last].0).unwrap_or_default();
        let mut spool = open(sim, &self.config).expect("always opens");
        assert!(spool.recovery.checkpoint, "the checkpoint was not damaged");
        let (end, next) = (self.places.len() as u64, spool.recovery.next);
        assert!(next <= end, "{next}");
        let mut got = vec![false; self.places.len()];
        let mut expected = 0;
        while spool.reader.position() < next {
            let Some(chunk) = self::next(&mut spool.reader) else { break };
            assert_eq!(chunk.first, expected + chunk.lost, "in order");
            let mut at = 0;
            for offset in chunk.first..chunk.end {
                let (segment, place) = &self.places[offset as usize];
                let original = &self.segments[*segment].1[place.clone()];
                assert_eq!(&chunk.bytes[at..at + original.len()], original, "record {offset} is another");
                at += original.len();
                got[offset as usize] = true;
            }
            assert_eq!(at, chunk.len_bytes());
            expected = chunk.end;
        }
        assert_eq!(spool.reader.position(), next, "reads on to the end");
        for (offset, (got, intact)) in got.iter().zip(intact).enumerate() {
            assert!(*got || !*intact, "record {offset} was not touched and is lost");
        }
        let missing = got[..next as usize].iter().filter(|got| !**got).count() as u64;
        assert_eq!(spool.shared.missing.load(Ordering::Acquire), missing, "says how many");
        // A file cut at a record boundary cannot be told from one that never held more.
        let ends_with =
            |(segment, place): &(usize, Range<usize>)| content.ends_with(&self.segments[*segment].1[place.clone()]);
        let unharmed = || content.len() <= HEADER || self.places.iter().any(ends_with);
        assert!(next == end || spool.recovery.torn_bytes > 0 || unharmed(), "says that the end is torn");
        let at_end = end - next;
        drop(spool);
        let quarantined = sim.names(&Path::new(DIR).join("quarantine"));
        let quarantine = quarantined.iter().map(|path| sim.get(path).unwrap()).collect();
        Outcome { missing, at_end, quarantine }
    }
}

impl Original {
    /// The same for moved files: offsets after the last record may be taken as well.
    pub fn check_files(&self, sim: &Sim, intact: &[bool]) {
        let mut spool = open(sim, &self.config).expect("always opens");
        let next = spool.recovery.next;
        let (mut expected, mut got) = (spool.recovery.first_uncommitted, 0);
        while spool.reader.position() < next {
            let Some(chunk) = self::next(&mut spool.reader) else { break };
            assert_eq!(
                chunk.first,
                expected + chunk.lost,
                "in order, {} missing",
                spool.shared.missing.load(Ordering::Acquire)
            );
            assert!(
                chunk.lost == 0 || !intact[expected as usize..chunk.first as usize].contains(&true),
                "lost {expected}.."
            );
            for record in chunk.records() {
                let (segment, place) = &self.places[record.offset as usize];
                assert_eq!(record.payload.len() + record::HEAD + record.channel.len(), place.len());
                assert!(
                    self.segments[*segment].1[place.clone()].ends_with(record.payload),
                    "{} is another",
                    record.offset
                );
                got += 1;
            }
            expected = chunk.end;
        }
        assert_eq!(spool.reader.position(), next, "reads on to the end");
        let rest = intact.get(expected as usize..).unwrap_or_default();
        assert!(!rest.contains(&true), "lost from {expected}");
        let missing = spool.shared.missing.load(Ordering::Acquire);
        assert_eq!(missing + got + spool.recovery.first_uncommitted, next, "says how many");
    }
}

/// See [`Original::check`].
pub struct Outcome {
    /// Records that are reported as lost.
    pub missing: u64,
    /// Records in the torn end, which was cut off.
    pub at_end: u64,
    /// Bytes in quarantine.
    pub quarantine: Vec<Vec<u8>>,
}

/// The spool accepts a record, and the next process returns it.
pub fn goes_on(sim: &Sim, config: &Config) {
    let mut spool = open(sim, config).unwrap();
    let offset = spool.appender.end();
    let new = NewRecord {
        kind: RecordKind::Event,
        decided: decided(offset),
        strict_json: false,
        from_stream: false,
        channel: "new",
        preamble: b"",
        payload: b"new",
    };
    assert_eq!(spool.appender.append(&new), Ok(offset));
    let synced = spool.appender.sync();
    assert!(synced.healthy && synced.durable == offset + 1);
    let mut checkpoint_thread = CheckpointThread::new(Arc::clone(&spool.shared), Arc::clone(&spool.commits));
    spool.commits.commit(offset);
    checkpoint_thread.step();
    drop((spool, checkpoint_thread));
    let mut spool = open(sim, config).unwrap();
    let chunk = next(&mut spool.reader).unwrap();
    assert_eq!((chunk.first, chunk.end, chunk.lost), (offset, offset + 1, 0));
    let record = chunk.records().next().unwrap();
    assert_eq!((record.channel, record.payload), ("new", &b"new"[..]));
}
