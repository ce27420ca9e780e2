//! The spool as the writer's source of records.

use std::{
    mem,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{
    decode::Decoder,
    ports::{Content, DecodedRecord, RecordChunk, RecordSource},
};
use crate::{
    event::{Guard, Row},
    lifecycle::next_tick,
    memory::{LARGE_VALUE, MemoryLimit, Reserved, WriterWait, guarded},
    spool::{self, Record, RecordKind},
    wire,
};

/// The longest pause between two polls of a log that was read to its end.
const POLL_INTERVAL_MAX: Duration = Duration::from_millis(250);
/// The shortest, where many records come.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(15);
/// Records of a poll from which the next pause is half as long; with less than a quarter of them it is twice as long.
const POLL_RECORDS: u64 = 640;
/// The same in bytes: the newest 4 MiB are in memory, older ones are read from the file.
const POLL_BYTES: usize = 1 << 20;

/// When a log that was read to its end is polled again. A batch is gathered for `writer.flush_interval` anyway, so the log is
/// read as seldom as that, and what was read then is written at once: waking up for every group that becomes durable costs more than
/// its records. Where many records come they are read in smaller portions.
#[derive(Debug)]
struct PollSchedule {
    /// The longest pause.
    interval_max: Duration,
    interval: Duration,
    /// Before then the log is not polled.
    not_before: Instant,
    /// When it was last read to its end.
    caught_up_at: Instant,
    /// Records read since then, and their bytes.
    records: u64,
    bytes: usize,
}

impl PollSchedule {
    fn new(flush_interval: Duration, now: Instant) -> Self {
        let interval_max = flush_interval.clamp(POLL_INTERVAL_MIN, POLL_INTERVAL_MAX);
        Self { interval_max, interval: interval_max, not_before: now, caught_up_at: now, records: 0, bytes: 0 }
    }

    /// How long the records that are read now have waited, at most. Of a backlog it is the longest pause: the log was last read to
    /// its end before that.
    fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.caught_up_at).min(self.interval_max)
    }

    /// Before then the log is not polled either when a client waits.
    fn urgent_not_before(&self) -> Instant {
        self.not_before.min(self.caught_up_at + POLL_INTERVAL_MIN)
    }

    /// The log is polled now.
    fn skip(&mut self) {
        self.not_before = Instant::now();
    }

    /// So many records were read, and there are no more. Returns when the log is polled again.
    fn caught_up(&mut self, now: Instant) -> Instant {
        let (records, bytes) = (mem::take(&mut self.records), mem::take(&mut self.bytes));
        if (records >= POLL_RECORDS || bytes >= POLL_BYTES) && self.interval / 2 >= POLL_INTERVAL_MIN {
            self.interval /= 2;
        } else if records < POLL_RECORDS / 4 && bytes < POLL_BYTES / 4 && self.interval < self.interval_max {
            self.interval *= 2;
        }
        (self.caught_up_at, self.not_before) = (now, next_tick(now, self.interval));
        self.not_before
    }
}

/// The spool's reader, as the writer sees it.
#[derive(Debug)]
pub struct SpoolRecords {
    reader: spool::Reader,
    view: spool::View,
    decoder: Arc<Decoder>,
    /// Kept here, so that a dropped `next` does not begin its pause again.
    schedule: PollSchedule,
    memory: MemoryLimit,
    /// What was read, and waits for the memory that its rows take; for the same reason.
    pending: Option<PendingChunk>,
    /// While the writer waits for nothing but memory.
    memory_wait: Option<WriterWait>,
    /// Held for as long as there is something of the last chunk with large records.
    large: Weak<Reserved>,
}

/// A chunk with large records.
#[derive(Debug)]
struct PendingChunk {
    chunk: spool::Chunk,
    /// What its texts take, counted once.
    texts: usize,
}

impl SpoolRecords {
    /// The records of this log; what large ones of them become is counted in `memory`. A row waits for at most `flush_interval`, or 15 ms,
    /// once its record is durable.
    pub fn new(
        reader: spool::Reader,
        view: spool::View,
        decoder: Arc<Decoder>,
        memory: MemoryLimit,
        flush_interval: Duration,
    ) -> Self {
        let schedule = PollSchedule::new(flush_interval, Instant::now());
        Self { reader, view, decoder, schedule, memory, pending: None, memory_wait: None, large: Weak::new() }
    }
}

/// How long the texts are that the large records of a chunk become, and the longest of them.
fn text_sizes(chunk: &spool::Chunk) -> (usize, usize) {
    if chunk.len_bytes() < LARGE_VALUE {
        return (0, 0);
    }
    let text = |record: Record<'_>| match record.kind {
        RecordKind::Event => wire::text_bytes(record.payload),
        // Kept, and once more in the buffer that is written.
        _ => 2 * record.payload.len(),
    };
    let large = chunk.records().filter(|record| record.payload.len() >= LARGE_VALUE / 4).map(text);
    large.fold((0, 0), |(sum, longest), text| (sum + text, text.max(longest)))
}

/// Some records of the log.
#[derive(Debug)]
pub struct SpoolChunk {
    chunk: spool::Chunk,
    decoder: Arc<Decoder>,
    /// Memory for what its records become, until the last of that is gone.
    reserved: Option<Guard>,
    waited: Duration,
    next_poll: Option<Instant>,
}

impl SpoolRecords {
    fn chunk(&mut self, chunk: spool::Chunk, reserved: Option<Guard>) -> SpoolChunk {
        let now = Instant::now();
        let waited = self.schedule.waited(now);
        self.schedule.records += chunk.end - chunk.first;
        self.schedule.bytes += chunk.len_bytes();
        let next_poll = (chunk.end >= self.view.end()).then(|| self.schedule.caught_up(now));
        SpoolChunk { chunk, decoder: Arc::clone(&self.decoder), reserved, waited, next_poll }
    }

    /// Memory for the texts of the chunk that waits. One chunk with large records after the other: two would wait for each other's
    /// memory, because a row takes more while it is written.
    async fn reserve(&mut self, texts: usize) -> Reserved {
        let wait = self.memory_wait.get_or_insert_with(|| self.memory.writer_waits());
        let reserved = wait.reserve(texts).await;
        self.memory_wait = None;
        reserved
    }

    /// Waits for records, and until a large one may be read. While the store is away the last one stays for long; no memory is held
    /// up for that.
    async fn readable(&mut self) {
        self.reader.readable().await;
        self.memory.until_released(|| self.large.strong_count() == 0).await;
        if self.memory.is_exceeded() {
            drop(self.reserve(0).await);
        }
    }
}

impl RecordSource for SpoolRecords {
    type Chunk = SpoolChunk;

    async fn next(&mut self) -> SpoolChunk {
        sleep_until(self.schedule.urgent_not_before()).await;
        tokio::select! {
            () = sleep_until(self.schedule.not_before) => {}
            () = self.reader.requested() => self.schedule.skip(),
        }
        if self.pending.is_none() {
            self.readable().await;
            let chunk = self.reader.next().await;
            let (texts, longest) = text_sizes(&chunk);
            if texts == 0 {
                return self.chunk(chunk, None);
            }
            self.memory.note_row(longest);
            self.pending = Some(PendingChunk { chunk, texts });
        }
        let texts = self.pending.as_ref().map_or(0, |pending| pending.texts);
        let reserved = Arc::new(self.reserve(texts).await);
        self.large = Arc::downgrade(&reserved);
        let chunk = self.pending.take().map(|pending| pending.chunk).unwrap_or_default();
        self.chunk(chunk, Some(reserved))
    }

    fn rewind(&mut self, offset: u64) {
        (self.pending, self.memory_wait) = (None, None);
        self.reader.rewind(offset);
    }

    fn skip_pause(&mut self) {
        self.schedule.skip();
    }
}

/// Whatever holds the large texts of a record holds the memory that was reserved for them.
fn attach_reservation(reserved: &Guard, content: &mut Content) {
    match content {
        Content::Rows { rows, .. } => {
            rows.iter_mut().filter_map(Row::text_mut).for_each(|text| text.attach(reserved.clone()))
        }
        Content::Rejected { preserved, .. } => *preserved = guarded(mem::take(preserved), reserved.clone()),
        Content::Nothing => {}
    }
}

impl RecordChunk for SpoolChunk {
    fn waited(&self) -> Duration {
        self.waited
    }

    fn next_poll(&self) -> Option<Instant> {
        self.next_poll
    }

    fn records(&self) -> impl Iterator<Item = DecodedRecord> + Send {
        self.chunk.records().map(|record| {
            let mut content = self.decoder.content(&record);
            if let Some(reserved) = &self.reserved {
                attach_reservation(reserved, &mut content);
            }
            DecodedRecord { offset: record.offset, received_at: record.decided.received_at, content }
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;
    use uuid::Uuid;

    use super::*;
    use crate::{event::Resolved, metrics::Metrics, spool::NewRecord};

    const READ_TIMEOUT: Duration = Duration::from_millis(100);

    #[test]
    fn a_log_is_polled_as_seldom_as_batches_are_flushed_unless_many_records_come() {
        const MS: Duration = Duration::from_millis(1);
        let start = next_tick(Instant::now(), 250 * MS);
        let mut schedule = PollSchedule::new(250 * MS, start);
        let mut at = |records, after: Duration| {
            let now = start + after;
            let waited = schedule.waited(now);
            schedule.records += records;
            (waited, schedule.caught_up(now).duration_since(start))
        };
        assert_eq!(at(1, Duration::ZERO), (Duration::ZERO, 250 * MS));
        // Polls are at multiples of the interval, however late the last one was.
        assert_eq!(at(500, 270 * MS), (250 * MS, 500 * MS));
        assert_eq!(at(5_000, 500 * MS), (230 * MS, 625 * MS));
        assert_eq!(at(2_500, 625 * MS), (125 * MS, 687 * MS + MS / 2));
        assert_eq!(at(500, 690 * MS), (65 * MS, 750 * MS));
        assert_eq!(at(10, 750 * MS), (60 * MS, 875 * MS));
        assert_eq!(at(10, 875 * MS), (125 * MS, 1_000 * MS));
        assert_eq!(
            at(10, 9_000 * MS),
            (250 * MS, 9_250 * MS),
            "after a silence, as if it had waited for a whole interval"
        );
        for _ in 0..20 {
            at(100_000, 9_300 * MS);
        }
        assert_eq!(at(500, 9_300 * MS), (Duration::ZERO, 9_312 * MS + MS / 2), "the shortest");
        let mut schedule = PollSchedule::new(250 * MS, start);
        (schedule.records, schedule.bytes) = (10, 2 << 20);
        assert_eq!(schedule.caught_up(start).duration_since(start), 125 * MS, "few records, but large ones");
    }
    const MIB: usize = 1 << 20;

    #[tokio::test]
    async fn a_large_record_waits_for_what_was_received_and_holds_up_everything_else_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let config = spool::Config { dir: dir.path().join("spool"), ..spool::Config::default() };
        let mut spool = spool::open(&config, Metrics::new()).unwrap();
        let memory = MemoryLimit::new(10 * MIB);
        let mut records = SpoolRecords::new(
            spool.reader,
            spool.view.clone(),
            Arc::new(Decoder::new("test")),
            memory.clone(),
            Duration::from_millis(20),
        );
        assert!(timeout(READ_TIMEOUT, records.next()).await.is_err());
        assert!(memory.try_reserve(MIB).is_some(), "without records the writer waits for no memory");

        let decided =
            Resolved { run_id: Uuid::nil(), event_time: 1, received_at: 1, has_event_time: false, opened_run: false };
        let payload = format!(r#"{{"type":"note","text":"{}"}}"#, "x".repeat(2 * MIB)).into_bytes();
        let record = NewRecord {
            kind: RecordKind::Event,
            decided,
            strict_json: false,
            from_stream: false,
            channel: "cascor:training",
            preamble: b"",
            payload: &payload,
        };
        spool.appender.append(&record).unwrap();
        spool.appender.sync();
        let received = memory.charge(11 * MIB);
        assert!(timeout(READ_TIMEOUT, records.next()).await.is_err());
        assert!(records.pending.is_none(), "it is not even read");
        drop(received);
        assert!(memory.try_reserve(1).is_none(), "the writer is first");
        let chunk = timeout(READ_TIMEOUT, records.next()).await.expect("there is room");
        let rows: Vec<_> = chunk.records().collect();
        drop(chunk);
        assert!(memory.used() >= payload.len(), "its text is counted for as long as there are rows of it");
        spool.appender.append(&record).unwrap();
        spool.appender.sync();
        assert!(timeout(READ_TIMEOUT, records.next()).await.is_err(), "one after the other");
        assert!(memory.try_reserve(1).is_some(), "while the store has the first, the second holds up nothing");
        drop(rows);
        assert_eq!(memory.used(), 0);
        assert!(timeout(READ_TIMEOUT, records.next()).await.is_ok());
    }
}
