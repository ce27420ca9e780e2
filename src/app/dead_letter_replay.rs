//! Replays dead letters: decodes them again, stores them, and drops them once the store has confirmed them.
//!
//! The rows have the keys of the first receipt: its time, channel and bytes are kept. The run is the one that was decided; else the
//! message's own, else the one that was open on its channel when it was rejected, else one named after it. So a second replay writes
//! the same rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use jiff::tz::TimeZone;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    offline_drain::{Endpoints, OfflineDrainError, StopWhen, Target, run_writer_until, wait_for_store, with_upkeep},
    stores,
};
use crate::{
    config::Settings,
    dead_letter::{self, DeadLetter as StoredLetter, DeadLetterError, Filter, Reader},
    event::{Kind, Resolved, implicit_run_id},
    frame::{Reason, RejectedMessage, Rejection},
    lifecycle::Signal,
    metrics::Metrics,
    redis,
    spool::{Record, RecordKind},
    store::BoxError,
    wire,
    writer::{
        self, Commit, Content, DeadLetterEntry, DeadLetterSink, DecodedRecord, Decoder, RecordChunk, RecordSource,
    },
};

/// The outcome of a replay.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// Stored, and dropped.
    pub stored: u64,
    /// Failed again, by id, and kept with the new reason.
    pub failed: Vec<(u64, Rejection)>,
    /// Cannot be replayed: the message was not kept whole.
    pub truncated: u64,
}

/// Replays the dead letters that match the filter. `on_progress` gets the number done, and the number of all.
///
/// # Errors
/// When the store is away, or the dead letters cannot be read or marked. Those that were stored by then are dropped.
pub async fn replay(
    settings: &Settings,
    filter: Filter,
    mut on_progress: impl FnMut(u64, u64),
) -> Result<Replayed, OfflineDrainError> {
    let total = count(settings, &filter).map_err(OfflineDrainError::DeadLetters)?;
    if total.whole == 0 {
        return Ok(Replayed { truncated: total.truncated, ..Replayed::default() });
    }
    let metrics = Metrics::new();
    let (_stopper, stop) = Signal::new();
    let (store, upkeep) = stores::open(settings, &metrics, stop);
    let shared = Arc::new(ReplayContext::new(settings));
    let linger = || if store.acks_may_be_lost() { settings.spool.checkpoint_delay } else { Duration::ZERO };
    let work = async {
        wait_for_store(&*store).await?;
        let commit = ReplayCommit(Arc::clone(&shared));
        let dir = settings.dead_letter.dir.clone();
        let records = LetterSource { dir, filter, reader: None, shared: Arc::clone(&shared) };
        let stop_when = StopWhen {
            first: 0,
            finished: || shared.is_finished(linger()),
            on_progress: |at: u64| {
                on_progress((shared.lock().read.range(..at).count() as u64).min(total.whole), total.whole)
            },
        };
        let endpoints = Endpoints { records, commit, sink: Arc::clone(&shared) };
        let target = Target { settings, store: &store, metrics: &metrics };
        run_writer_until(target, endpoints, stop_when).await
    };
    let outcome = with_upkeep(upkeep, work).await;
    let confirmed = shared.confirmed(linger());
    let ReplayState { mut read, mut failed, truncated, unreadable, .. } = std::mem::take(&mut *shared.lock());
    failed.retain(|id, _| *id < confirmed);
    read.retain(|id| *id < confirmed && !failed.contains_key(id));
    let stored = read.len() as u64;
    dead_letter::dropped::update(&settings.dead_letter.dir, read, failed.clone())
        .map_err(OfflineDrainError::DeadLetters)?;
    outcome?;
    match unreadable {
        Some(error) => Err(OfflineDrainError::DeadLetters(error)),
        None => Ok(Replayed { stored, failed: failed.into_iter().collect(), truncated }),
    }
}

/// Dead letters at the start. During the replay, some may be dropped for room, and new ones may come.
#[derive(Default)]
struct Total {
    whole: u64,
    truncated: u64,
}

fn count(settings: &Settings, filter: &Filter) -> Result<Total, DeadLetterError> {
    let mut reader = Reader::open(&settings.dead_letter.dir, filter.clone())?;
    let mut total = Total::default();
    loop {
        let letters = reader.next_entries()?;
        if letters.is_empty() {
            return Ok(total);
        }
        let whole = letters.iter().filter(|letter| is_whole(letter)).count() as u64;
        total.whole += whole;
        total.truncated += letters.len() as u64 - whole;
    }
}

/// Whether the dead letter has its message. A rejected one without a channel is the text of a refused row whose record could not be
/// read any more; gaps and receipts may have no channel.
fn is_whole(letter: &StoredLetter) -> bool {
    letter.info.kept == letter.info.length && (letter.kind != RecordKind::Rejected || !letter.info.channel.is_empty())
}

/// The state that source, commit and sink of the writer share.
struct ReplayContext {
    /// For messages that intake accepted.
    unlimited: Decoder,
    /// For messages that it rejected: under the current limits.
    limited: Decoder,
    limits: wire::Limits,
    zone: TimeZone,
    control_channels: Vec<String>,
    state: Mutex<ReplayState>,
}

#[derive(Default)]
struct ReplayState {
    /// Dead letters that the writer has read.
    read: BTreeSet<u64>,
    /// Dead letters that were skipped.
    truncated: u64,
    /// Whether the last one is read.
    ended: bool,
    failed: BTreeMap<u64, Rejection>,
    /// The id below which everything is stored or has failed, and since when.
    confirmed: Option<(u64, Instant)>,
    unreadable: Option<DeadLetterError>,
}

impl ReplayContext {
    fn new(settings: &Settings) -> Self {
        Self {
            unlimited: Decoder::new(&settings.instance),
            limited: Decoder::limited(&settings.instance, settings.limits.clone()),
            limits: settings.limits.clone(),
            zone: TimeZone::get(&settings.intake.time_zone).unwrap_or(TimeZone::UTC),
            control_channels: settings.redis.control_channels.clone(),
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, ReplayState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The confirmed id, where acknowledgements older than `linger` are final.
    fn confirmed(&self, linger: Duration) -> u64 {
        self.lock().confirmed.filter(|(_, at)| at.elapsed() >= linger).map_or(0, |(next, _)| next)
    }

    /// Whether everything is read and confirmed, or no more can be.
    fn is_finished(&self, linger: Duration) -> bool {
        let confirmed = self.confirmed(linger);
        let state = self.lock();
        state.unreadable.is_some() || (state.ended && state.read.last().is_none_or(|last| *last < confirmed))
    }

    fn content(&self, letter: &StoredLetter) -> Content {
        let source = letter.info.source();
        let record = |kind, decided, channel| Record {
            offset: letter.info.id,
            kind,
            decided,
            strict_json: false,
            from_stream: false,
            channel,
            payload: &letter.payload,
        };
        match letter.kind {
            RecordKind::Rejected if self.is_control(&letter.info.channel) => {
                self.limited.content(&record(RecordKind::Control, letter.decided, &source))
            }
            RecordKind::Rejected => match self.decide(letter) {
                Ok(decided) => {
                    // With a time of its own, the entry id is no part of its identity.
                    let source = if decided.has_event_time { &letter.info.channel } else { &source };
                    self.limited.content(&record(RecordKind::Event, decided, source))
                }
                Err(rejection) => {
                    let (rejected, _) = RejectedMessage::new(rejection, &letter.payload);
                    Content::Rejected {
                        channel: letter.info.channel.clone(),
                        rejected,
                        preserved: Bytes::new(),
                        run_id: Uuid::nil(),
                    }
                }
            },
            kind => self.unlimited.content(&record(kind, letter.decided, &source)),
        }
    }

    /// The run and the time that intake would assign.
    fn decide(&self, letter: &StoredLetter) -> Result<Resolved, Rejection> {
        let message = wire::decode(&letter.payload, &self.limits)?;
        let received_at = letter.decided.received_at;
        let time = message.time(received_at, &self.zone).of_entry(letter.info.entry_id());
        let open = Some(letter.decided.run_id).filter(|run| !run.is_nil() && message.kind() != Kind::RunStart);
        let named = || implicit_run_id(&letter.info.channel, time.event_time, &letter.payload);
        let run_id = message.run_id().or(open).unwrap_or_else(named);
        let opened = message.run_id().is_none() && open.is_none();
        Ok(time.resolve(received_at, run_id, opened))
    }

    fn is_control(&self, channel: &str) -> bool {
        self.control_channels.iter().any(|pattern| redis::overlap(pattern, channel))
    }
}

/// The dead letters as the writer's source.
struct LetterSource {
    dir: PathBuf,
    filter: Filter,
    reader: Option<Reader>,
    shared: Arc<ReplayContext>,
}

struct LetterChunk {
    letters: Vec<StoredLetter>,
    shared: Arc<ReplayContext>,
}

impl LetterSource {
    fn read(&mut self) -> Result<Vec<StoredLetter>, DeadLetterError> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => self.reader.insert(Reader::open(&self.dir, self.filter.clone())?),
        };
        reader.next_entries()
    }
}

impl RecordSource for LetterSource {
    type Chunk = LetterChunk;

    async fn next(&mut self) -> LetterChunk {
        match self.read() {
            Ok(letters) if !letters.is_empty() => {
                let (letters, truncated): (Vec<_>, Vec<_>) = letters.into_iter().partition(is_whole);
                let mut state = self.shared.lock();
                state.read.extend(letters.iter().map(|letter| letter.info.id));
                state.truncated += truncated.len() as u64;
                drop(state);
                return LetterChunk { letters, shared: Arc::clone(&self.shared) };
            }
            Ok(_) => self.shared.lock().ended = true,
            Err(error) => self.shared.lock().unreadable = Some(error),
        }
        std::future::pending().await
    }

    fn rewind(&mut self, _offset: u64) {
        self.reader = None;
        let mut state = self.shared.lock();
        (state.ended, state.truncated) = (false, 0);
        state.read.clear();
    }
}

impl RecordChunk for LetterChunk {
    fn records(&self) -> impl Iterator<Item = DecodedRecord> + Send {
        self.letters.iter().map(|letter| DecodedRecord {
            offset: letter.info.id,
            received_at: letter.decided.received_at,
            content: self.shared.content(letter),
        })
    }
}

struct ReplayCommit(Arc<ReplayContext>);

impl Commit for ReplayCommit {
    fn commit(&self, next: u64) {
        let mut state = self.0.lock();
        if state.confirmed.is_none_or(|(known, _)| next > known) {
            state.confirmed = Some((next, Instant::now()));
        }
    }

    /// The store may have lost any row: all are written again.
    fn rollback_to_checkpoint(&self) -> u64 {
        let mut state = self.0.lock();
        (state.confirmed, state.failed) = (None, BTreeMap::new());
        0
    }
}

impl DeadLetterSink for ReplayContext {
    async fn put(&self, letters: &[DeadLetterEntry]) -> Result<(), BoxError> {
        let mut state = self.lock();
        for letter in letters {
            let rejection = match &letter.body {
                writer::DeadLetterBody::Message { rejected: aside, .. } => aside.rejection.clone(),
                writer::DeadLetterBody::Refused { error, .. } => {
                    Rejection { reason: Reason::RejectedByStore, detail: error.clone() }
                }
            };
            state.failed.insert(letter.offset, rejection);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dead_letter::{DeadLetterLog, NewDeadLetter},
        units::ByteSize,
    };

    fn letter(offset: u64, kind: RecordKind, channel: &'static str) -> NewDeadLetter<'static> {
        let rejection = Rejection { reason: Reason::RejectedByStore, detail: "no".into() };
        let (aside, payload) = RejectedMessage::new(rejection, &[b'x'; 1_000]);
        let decided =
            Resolved { run_id: Uuid::nil(), event_time: 17, received_at: 17, has_event_time: false, opened_run: false };
        NewDeadLetter { rejected: aside, channel, decided, kind, spool_id: Uuid::nil(), offset, row: 0, payload }
    }

    /// The ids of everything that there is, as the writer reads it.
    async fn read(letters: &mut LetterSource) -> Vec<u64> {
        let mut ids = Vec::new();
        while let Ok(some) = tokio::time::timeout(Duration::from_millis(50), letters.next()).await {
            ids.extend(some.records().map(|record| record.offset));
        }
        ids
    }

    #[tokio::test(start_paused = true)]
    async fn only_dead_letters_that_were_read_count_and_the_replay_ends_with_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.dead_letter.dir = dir.path().join("deadletter");
        settings.dead_letter.capacity = ByteSize::kib(64);
        let kept = DeadLetterLog::open(&settings.dead_letter, Metrics::new()).unwrap();
        for offset in 0..40 {
            kept.put(&letter(offset, RecordKind::Event, "cascor:training")).unwrap();
        }
        let shared = Arc::new(ReplayContext::new(&settings));
        let (dir, filter) = (settings.dead_letter.dir.clone(), Filter::default());
        let reader = Some(Reader::open(&dir, filter.clone()).unwrap());
        let mut letters = LetterSource { dir, filter, reader, shared: Arc::clone(&shared) };
        // Some of the listed go to make room, or by hand: here the last ones.
        let newest = std::fs::read_dir(&settings.dead_letter.dir).unwrap().map(|entry| entry.unwrap().path());
        let newest = newest.filter(|path| path.extension().is_some_and(|e| e == "seg")).max().unwrap();
        std::fs::remove_file(newest).unwrap();
        let ids = read(&mut letters).await;
        assert!(!ids.is_empty() && ids.len() < 40);
        assert_eq!(shared.lock().read.iter().copied().collect::<Vec<_>>(), ids);
        assert!(!shared.is_finished(Duration::ZERO), "nothing is confirmed");
        ReplayCommit(Arc::clone(&shared)).commit(ids[ids.len() - 1] + 1);
        assert!(shared.is_finished(Duration::ZERO));
        letters.rewind(0);
        assert!(!shared.is_finished(Duration::ZERO) && shared.lock().read.is_empty(), "all of it once more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_without_a_channel_can_be_replayed_and_a_row_without_its_message_cannot() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.dead_letter.dir = dir.path().join("deadletter");
        let kept = DeadLetterLog::open(&settings.dead_letter, Metrics::new()).unwrap();
        kept.put_all(&[letter(0, RecordKind::Rejected, ""), letter(1, RecordKind::Gap, "")]).unwrap();
        let total = count(&settings, &Filter::default()).unwrap();
        assert_eq!((total.whole, total.truncated), (1, 1));
        let shared = Arc::new(ReplayContext::new(&settings));
        let (dir, filter) = (settings.dead_letter.dir.clone(), Filter::default());
        let mut letters = LetterSource { dir, filter, reader: None, shared: Arc::clone(&shared) };
        assert_eq!(read(&mut letters).await, [1]);
        assert_eq!(shared.lock().truncated, 1);
    }
}
