//! Reads over one pair of connections until they are lost, or until Redis refuses.

use std::{
    future::{pending, poll_fn},
    mem,
    pin::Pin,
    time::Duration,
};

use fred::error::{Error as RedisError, ErrorKind};
use futures_util::FutureExt;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::{
    commands::{Commands, StreamError},
    consumer::{ACKNOWLEDGE_MAX, Consumer},
    deleted_entries::DeletedBatch,
    maintenance::{ClaimSchedule, MaintenanceResult, MaintenanceTask, maintain},
    pace::Pace,
    read_new::{NewRead, ReadEntries},
    read_size::{ANSWER_BYTES, ENTRIES_MAX},
    session::{End, Session},
};
use crate::{event::EntryId, frame::Settled, lifecycle::Signal};

/// How often the state of the stream is asked for, and gaps are sent.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// What intake has refused, because the disk has no room, is delivered again after this long.
const REFUSED_DELAY: Duration = Duration::from_millis(500);

/// When stopping: how long the last read may take, and its entries to reach the queue.
const LAST_READ_TIMEOUT: Duration = Duration::from_secs(1);
/// The same of one that Redis is not asked to end: the answer of a read that does not wait is on its way.
const UNASKED_READ_TIMEOUT: Duration = Duration::from_millis(50);
/// After this long the server is asked once more to answer it: it may have received the read after the request.
const UNBLOCK_RETRY_DELAY: Duration = Duration::from_millis(10);

/// An answer to a command, awaited while further events are handled.
type PendingReply<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// The commands of a session that are under way, and when the next ones begin.
struct SessionState {
    read: PendingReply<Result<ReadEntries, StreamError>>,
    pace: Pace,
    acknowledge: PendingReply<Result<(), StreamError>>,
    maintenance: PendingReply<Result<MaintenanceResult, StreamError>>,
    ticks: Interval,
    /// Up to where the own pending entries were read; absent: all were.
    pending_cursor: Option<EntryId>,
    /// Until when nothing is read, because intake has refused entries.
    paused_until: Option<Instant>,
    /// Whether the own pending entries are to be read again, because some of them were refused.
    reread_pending: bool,
    claims: ClaimSchedule,
}

/// What a session waits for.
enum SessionEvent {
    Stopped,
    Acknowledged(Result<(), StreamError>),
    Settled(Vec<Settled>),
    Read(Result<ReadEntries, StreamError>),
    Maintained(Box<Result<MaintenanceResult, StreamError>>),
    Resumed,
    /// The entries of a window have gathered.
    Gathered,
    Ticked,
    Lost,
}

impl Consumer {
    /// Reads until told to stop, or until something is wrong.
    pub(super) async fn read(&mut self, mut session: Session, stop: &mut Signal) -> End {
        let mut ticks = interval(MAINTENANCE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut state = SessionState {
            read: None,
            pace: Pace::default(),
            acknowledge: None,
            maintenance: None,
            ticks,
            pending_cursor: Some(EntryId::default()),
            paused_until: None,
            reread_pending: false,
            claims: ClaimSchedule::new(self.stream.redis.claim_after),
        };
        let commands = session.writing.clone();
        let end = loop {
            self.begin(&session, &mut state);
            let event = self.next(&mut session, &mut state, stop).await;
            if let Err(end) = self.handle(event, &commands, &mut state).await {
                break end;
            }
        };
        // Sent and not answered: it may have worked or not, and may be sent again.
        self.acks.not_acknowledged();
        if matches!(end, End::Stopped) {
            self.finish_read(&commands, session.reader_id, &mut state).await;
            let Session { reader, writer, writing, .. } = session;
            // Redis hands out nothing more over it.
            drop(reader);
            self.last_writer = Some((writer, writing));
        }
        end
    }

    /// When stopping: ends a read that waits for an entry, and delivers what it is answered: else that would wait for another daemon to
    /// claim it. Where Redis cannot be asked to end it, its connection is closed, unless it is answered soon; what Redis hands out in
    /// that moment is pending, and read after the next start or claimed.
    async fn finish_read(&mut self, commands: &Commands, reader_id: Option<u64>, state: &mut SessionState) {
        let Some(mut read) = state.read.take() else { return };
        let last = async {
            let entries = loop {
                let unblock = async {
                    let Some(id) = reader_id else { return false };
                    let asked = commands.unblock(id).await.is_ok();
                    if asked {
                        sleep(UNBLOCK_RETRY_DELAY).await;
                    }
                    asked
                };
                tokio::select! {
                    biased;
                    entries = &mut read => break entries,
                    asked = unblock => if !asked {
                        match timeout(UNASKED_READ_TIMEOUT, &mut read).await {
                            Ok(entries) => break entries,
                            Err(_) => return,
                        }
                    },
                }
            };
            if let Ok(ReadEntries { entries, .. }) = entries {
                // Intake may have ended: they are delivered again after the next start.
                let _ = self.deliver(entries).await;
            }
        };
        let _ = timeout(LAST_READ_TIMEOUT, last).await;
    }

    /// Begins what can be begun.
    fn begin(&mut self, session: &Session, state: &mut SessionState) {
        let count = self.capacity();
        if state.pace.gathers_until().is_some() {
            if count > 0 {
                return;
            }
            state.pace.end();
        }
        let now = Instant::now();
        // Only acknowledged entries make room.
        let urgent = count == 0 || self.acks.durable() >= ACKNOWLEDGE_MAX;
        if state.acknowledge.is_none() && (urgent || state.pace.acknowledges(now)) {
            let ids = self.acks.take_durable(ACKNOWLEDGE_MAX);
            if !ids.is_empty() {
                state.pace.acknowledged(now);
                let commands = session.writing.clone();
                state.acknowledge = Some(Box::pin(async move { commands.acknowledge(&ids).await }));
            }
        }
        if state.read.is_some() || state.paused_until.is_some() {
            return;
        }
        if count == 0 {
            return;
        }
        // Not while a read is under way, whose answer would count as one of theirs.
        if mem::take(&mut state.reread_pending) {
            state.pending_cursor = Some(EntryId::default());
        }
        let (commands, read) = (session.reading.clone(), self.new_read(&state.pace, now));
        state.read = Some(match state.pending_cursor {
            Some(after) => Box::pin(async move {
                let read = commands.read_own(after, count).await;
                read.map(|entries| ReadEntries { entries, more: true })
            }),
            None => Box::pin(async move { commands.read_new(read).await }),
        });
    }

    /// How many entries are read that no consumer has read.
    fn new_read(&self, pace: &Pace, now: Instant) -> NewRead {
        if pace.waits() {
            return NewRead::Next;
        }
        let (frames, bytes) = self.room();
        let estimate = self.size.next(frames, bytes);
        match pace.steady(now) {
            Some(entries) => NewRead::Unmeasured(entries.min(estimate)),
            None => NewRead::Measured { entries: frames.min(ENTRIES_MAX), bytes: bytes.min(ANSWER_BYTES), estimate },
        }
    }

    /// Entries that may be read now, if they are as large as those before.
    pub(super) fn capacity(&self) -> usize {
        let (frames, bytes) = self.room();
        self.size.next(frames, bytes)
    }

    /// Room for entries, and for their bytes.
    fn room(&self) -> (usize, usize) {
        let frames = self.stream.frames_max.saturating_sub(self.acks.entries());
        let bytes = match self.acks.bytes() {
            // Even the largest entry is read at some time.
            0 => self.stream.bytes_max.max(1),
            bytes => self.stream.bytes_max.saturating_sub(bytes),
        };
        (frames, bytes)
    }

    async fn next(&mut self, session: &mut Session, state: &mut SessionState, stop: &mut Signal) -> SessionEvent {
        let (resumed, gathers_until) = (at(state.paused_until), state.pace.gathers_until());
        tokio::select! {
            biased;
            () = stop.stopped() => SessionEvent::Stopped,
            answer = wait(&mut state.acknowledge) => SessionEvent::Acknowledged(answer),
            // What becomes durable within the window is acknowledged at its end.
            settled = self.sender.settled(), if gathers_until.is_none() => SessionEvent::Settled(settled),
            entries = wait(&mut state.read) => SessionEvent::Read(entries),
            maintenance = wait(&mut state.maintenance) => SessionEvent::Maintained(Box::new(maintenance)),
            () = resumed => SessionEvent::Resumed,
            () = at(gathers_until) => SessionEvent::Gathered,
            _ = state.ticks.tick() => SessionEvent::Ticked,
            () = session.reader.lost() => SessionEvent::Lost,
            () = session.writer.lost() => SessionEvent::Lost,
        }
    }

    async fn handle(&mut self, event: SessionEvent, commands: &Commands, state: &mut SessionState) -> Result<(), End> {
        match event {
            SessionEvent::Stopped => return Err(End::Stopped),
            SessionEvent::Acknowledged(answer) => {
                answer?;
                let count = self.acks.acknowledged();
                self.count_acknowledged(count);
            }
            SessionEvent::Settled(settled) => self.settle(&settled, state),
            SessionEvent::Read(entries) => self.on_read(entries?, state).await?,
            SessionEvent::Maintained(maintenance) => self.on_maintenance((*maintenance)?, &mut state.claims).await?,
            SessionEvent::Resumed => (state.paused_until, state.reread_pending) = (None, true),
            SessionEvent::Gathered => {
                state.pace.end();
                // Taken in before the next read begins: then both commands are sent together.
                if let Some(settled) = self.sender.settled().now_or_never() {
                    self.settle(&settled, state);
                }
            }
            SessionEvent::Ticked => {
                self.stream.metrics.source_queue_depth.set(self.sender.depth() as i64);
                self.sender.flush_gaps(Instant::now())?;
                let unacknowledged = self.acks.entries() as u64;
                self.stream.status.change(|status| status.unacknowledged = unacknowledged);
                if state.maintenance.is_none() {
                    let due = state.claims.due(self.capacity());
                    // Once all of them are read: then they are reported in the same parts after a restart.
                    let deleted =
                        if state.pending_cursor.is_none() { self.take_deleted() } else { DeletedBatch::default() };
                    let task = MaintenanceTask { reporter: self.reporter(), deleted, due };
                    state.maintenance = Some(Box::pin(maintain(commands.clone(), task)));
                }
            }
            SessionEvent::Lost => {
                let closed = RedisError::new(ErrorKind::IO, "it was closed");
                return Err(End::Failed(StreamError::Lost(closed)));
            }
        }
        Ok(())
    }

    fn settle(&mut self, settled: &[Settled], state: &mut SessionState) {
        if self.acks.settle(settled) > 0 {
            state.paused_until = Some(Instant::now() + REFUSED_DELAY);
        }
    }

    async fn on_read(&mut self, read: ReadEntries, state: &mut SessionState) -> Result<(), End> {
        let ReadEntries { entries, more } = read;
        self.answered = true;
        self.size.answered(entries.iter().map(|entry| entry.message.as_ref().map_or(0, bytes::Bytes::len)));
        if state.pending_cursor.is_none() {
            state.pace.answered(entries.len(), more, Instant::now());
            if !entries.is_empty() && state.pace.gathers_until().is_none() {
                // More are there: the parts of a long answer are taken in together.
                self.sender.coalesce();
            }
        }
        let Some(after) = state.pending_cursor else { return Ok(self.deliver(entries).await?) };
        // The own pending entries end where there are no more.
        state.pending_cursor = entries.last().map(|last| last.id).filter(|last| *last > after);
        self.deliver(entries).await?;
        if state.pending_cursor.is_none() {
            let Self { acks, deleted, .. } = self;
            acks.keep_earlier(|id| deleted.contains(id));
        }
        Ok(())
    }
}

/// Waits until then; for ever, if there is no such moment.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

/// Waits for an answer, and takes it; for ever, if none is awaited.
async fn wait<T>(awaited: &mut PendingReply<T>) -> T {
    let answer = poll_fn(|context| match awaited {
        Some(future) => future.as_mut().poll(context),
        None => std::task::Poll::Pending,
    })
    .await;
    *awaited = None;
    answer
}
