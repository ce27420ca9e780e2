//! A running source: opens sessions, delivers entries, reports what is wrong, and acknowledges the last entries when stopping.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::{
    ack_tracker::AckTracker,
    commands::{Commands, RefusedScripts, StreamError},
    deleted_entries::{DeletedBatch, DeletedEntries},
    read_size::ReadSize,
    reply::{Entry, Snapshot, plausible_time},
    report::{OtherReport, Reporter},
    rollback::has_rolled_back,
    session::Session,
    shared_counters::{counters_key, former_counters_key},
    source::Stream,
    trimmed::removed,
};
use crate::{
    backoff::{self, Backoff},
    event::EntryId,
    frame::Frame,
    gaps::GapReason,
    redis::{Acl, Connected, connect},
    source::{
        queue::Closed,
        queue_sender::{Loss, QueueSender},
        receive_clock::ReceiveClock,
        role::Role,
    },
    units::Micros,
};

/// How long the last entries may take to reach the disk when stopping.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);
/// Entries of one acknowledgement.
pub(super) const ACKNOWLEDGE_MAX: usize = 1_000;
/// A running source.
pub(super) struct Consumer {
    pub(super) stream: Stream,
    acl: Acl,
    pub(super) sender: QueueSender,
    pub(super) clock: ReceiveClock,
    pub(super) acks: AckTracker,
    pub(super) size: ReadSize,
    /// Whether there has been a session: then a group that is not there was destroyed.
    had_group: bool,
    /// The newest state of the stream, and when it was asked for.
    pub(super) last_snapshot: Option<(Micros, Snapshot)>,
    /// The newest entry that was read.
    pub(super) newest: Option<EntryId>,
    /// Entries that are reported as trimmed by now, as the server counts them.
    pub(super) trimmed_before: u64,
    /// Entries that were removed from the stream, by trimming or else, when all losses were reported last.
    pub(super) removed_before: Option<u64>,
    /// The first moment of the newest loss: that of the next is later, because the rows of losses are known by it.
    last_loss: Micros,
    /// Own pending entries that are no longer in the stream.
    pub(super) deleted: DeletedEntries,
    pub(super) other_report: OtherReport,
    /// Whether the present session has had an answer.
    pub(super) answered: bool,
    /// To acknowledge the last entries when stopping.
    pub(super) last_writer: Option<(Connected, Commands)>,
}

impl Consumer {
    pub(super) fn new(stream: Stream, sender: QueueSender) -> Self {
        let acl = Acl::of(&stream.redis);
        Self {
            stream,
            acl,
            sender,
            clock: ReceiveClock::default(),
            acks: AckTracker::default(),
            size: ReadSize::default(),
            had_group: false,
            last_snapshot: None,
            newest: None,
            trimmed_before: 0,
            removed_before: None,
            last_loss: 0,
            deleted: DeletedEntries::default(),
            other_report: OtherReport::default(),
            answered: false,
            last_writer: None,
        }
    }

    /// Connects, makes the group where it is missing, and finds out whether entries can be acknowledged.
    pub(super) async fn open(&mut self) -> Result<Session, StreamError> {
        self.answered = false;
        self.acks.begin_session();
        self.deleted.begin_session();
        // A read that waits blocks its connection.
        let reader = connect(&self.stream.redis).await?;
        let writer = connect(&self.stream.redis).await?;
        let refused_scripts = RefusedScripts::default();
        let [reading, writing] = [&reader, &writer].map(|connected| Commands {
            client: connected.client.clone(),
            acl: self.acl.clone(),
            key: self.stream.name.to_string(),
            group: self.stream.redis.group.clone(),
            consumer: self.stream.consumer.clone(),
            counters_key: counters_key(&self.stream.redis.key_prefix, &self.stream.name),
            former_counters_key: former_counters_key(&self.stream.redis.key_prefix, &self.stream.name),
            refused_scripts: refused_scripts.clone(),
        });
        let reader_id = reading.connection_id().await?;
        let session = Session { reader, writer, reading, writing, reader_id };
        let before = match session.writing.snapshot().await {
            Ok(before) => before,
            // Without the permission the lag is unknown.
            Err(StreamError::Refused(refusal)) => {
                self.stream.status.change(|status| status.error = Some(refusal.to_string()));
                None
            }
            Err(error) => return Err(error),
        };
        let reported = session.writing.reported().await;
        let again = self.had_group || matches!(reported, Ok(Some(_)));
        // What a group that was there before had read is not known.
        let known = before.as_ref().filter(|_| again).and_then(removed).unwrap_or(0);
        let created = match before.as_ref().is_some_and(|before| before.group.is_some()) {
            true => false,
            false => session.writing.create(known).await?,
        };
        if created {
            if again {
                self.on_group_recreated(before.as_ref());
            }
            (self.trimmed_before, self.removed_before) = (known, None);
        } else if let (Some(before), Some(newest)) = (&before, self.newest)
            && has_rolled_back(&session.writing, before, newest).await
        {
            self.on_rollback();
        }
        // Acknowledges nothing, but says whether it may.
        session.writing.acknowledge(&[EntryId::default()]).await?;
        self.had_group = true;
        self.report_up();
        if let Ok(Some(now)) = session.writing.snapshot().await {
            let trimmed = self.reporter().report(&session.writing, &now).await;
            self.on_snapshot(now, trimmed);
        }
        Ok(session)
    }

    fn report_up(&mut self) {
        let now = self.clock.now();
        self.stream.connection.up(&[], None, now);
        self.stream.status.change(|status| (status.reading, status.error) = (true, None));
        self.stream.metrics.source_connected.of(Role::Stream.as_str()).inc();
        self.stream.metrics.source_connects.of(Role::Stream.as_str()).inc();
        info!(stream = &*self.stream.name, group = self.stream.redis.group, "reading a stream");
    }

    /// The group was gone, and was made again. What the stream holds is read once more; what was unread in a stream that is gone is
    /// lost, and how much that is cannot be known.
    fn on_group_recreated(&mut self, before: Option<&Snapshot>) {
        let now = self.clock.now();
        let last = self.last_snapshot.as_ref().map(|(at, seen)| (*at, seen.last_generated));
        let stream_kept =
            before.is_some_and(|stream| last.is_none_or(|(_, generated)| stream.last_generated >= generated));
        let what = if stream_kept { "the consumer group was destroyed" } else { "the stream was deleted or replaced" };
        if !stream_kept {
            let since = last.map_or(now, |(at, _)| at);
            self.sender.record_gap(GapReason::StreamReset, since, now, Some(self.stream.name.to_string()));
        }
        self.record_recovery(what);
        self.forget_entries();
    }

    /// The server lacks the newest entry that was read. Reading goes on where the group is: what is read once more is the same row.
    fn on_rollback(&mut self) {
        let now = self.clock.now();
        let since = self.last_snapshot.as_ref().map_or(now, |(at, _)| *at);
        self.sender.record_gap(GapReason::StreamReset, since, now, Some(self.stream.name.to_string()));
        self.removed_before = None;
        self.record_recovery("the server lacks entries that were read from it, as a replica that was behind does");
        self.forget_entries();
    }

    /// What is known of entries may be about others with the same ids.
    fn forget_entries(&mut self) {
        (self.last_snapshot, self.newest) = (None, None);
        self.acks.forget_earlier();
    }

    fn record_recovery(&mut self, what: &str) {
        warn!(stream = &*self.stream.name, group = self.stream.redis.group, "{what}; reading goes on");
        self.stream.metrics.stream_recoveries.of(self.stream.label).inc();
        self.stream.status.change(|status| {
            status.recoveries += 1;
            status.last_recovery = Some(what.to_owned());
        });
    }

    /// Delivers entries that are not on their way already.
    pub(super) async fn deliver(&mut self, entries: Vec<Entry>) -> Result<(), Closed> {
        let mut frames = Vec::with_capacity(entries.len());
        let mut bytes = 0;
        let received = Instant::now();
        for entry in entries.into_iter().filter(|entry| self.acks.is_new(entry.id)).collect::<Vec<_>>() {
            let Some(message) = entry.message else {
                // It was trimmed or deleted, and cannot be delivered any more.
                self.deleted.insert(entry.id);
                continue;
            };
            bytes += message.len();
            self.newest = self.newest.max(Some(entry.id));
            self.acks.delivered(entry.id, message.len());
            frames.push(Frame {
                channel: self.stream.name.clone(),
                payload: message,
                received_at: plausible_time(entry.id).unwrap_or_else(|| self.clock.now()),
                received,
                control: false,
                entry: Some(entry.id),
            });
        }
        self.stream.metrics.source_messages.inc_by(frames.len() as u64);
        self.stream.metrics.source_bytes.inc_by(bytes as u64);
        self.sender.deliver(&mut frames).await
    }

    /// Entries were acknowledged, which are on disk.
    pub(super) fn count_acknowledged(&self, count: u64) {
        self.stream.metrics.stream_acknowledged.of(self.stream.label).inc_by(count);
        self.stream.status.change(|status| status.acknowledged += count);
    }

    /// Entries were trimmed before they were read.
    pub(super) fn record_trimmed(&mut self, lost: u64, exact: bool) {
        if lost == 0 {
            return;
        }
        let reason = if exact { GapReason::Trimmed } else { GapReason::TrimmedAtMost };
        let (started_at, now) = self.time_of_loss();
        warn!(
            stream = &*self.stream.name,
            lost, exact, "entries were trimmed before they were read; they are counted. Let the stream keep more"
        );
        let channel = Some(&*self.stream.name);
        self.sender.record_loss(Loss { reason, started_at, ended_at: now, channel, lost });
    }

    /// First and last moment of a loss that is found now: since the last snapshot.
    fn time_of_loss(&mut self) -> (Micros, Micros) {
        let now = self.clock.now();
        self.last_loss = self.last_snapshot.as_ref().map_or(now, |(at, _)| *at).max(self.last_loss + 1);
        (self.last_loss, now)
    }

    /// Reports what the next snapshot shows.
    pub(super) fn reporter(&mut self) -> Reporter {
        let (since, until) = self.time_of_loss();
        let gaps = self.sender.durable_gaps();
        Reporter::new(gaps, since..until, self.removed_before, &self.other_report)
    }

    /// Takes own pending entries that are no longer in the stream, to be acknowledged.
    pub(super) fn take_deleted(&mut self) -> DeletedBatch {
        self.deleted.take(&self.acks, ACKNOWLEDGE_MAX)
    }

    /// Says what is wrong, and when to try again.
    pub(super) fn on_error(&mut self, error: &StreamError, retry: &mut Backoff) -> Duration {
        if self.answered {
            retry.reset();
        }
        let (text, now) = (error.text(), self.clock.now());
        self.stream.status.change(|status| {
            if status.reading {
                self.stream.metrics.source_connected.of(Role::Stream.as_str()).dec();
            }
            (status.reading, status.error) = (false, Some(text.clone()));
        });
        if self.stream.connection.down(text.clone(), now) {
            warn!(stream = &*self.stream.name, error = text, "not reading a stream; trying again");
        }
        // A closed queue is noticed at the next entry.
        let _ = self.sender.flush_gaps(Instant::now());
        match error {
            StreamError::Connect(error) => error.retry_delay(retry),
            StreamError::Lost(_) | StreamError::Gone(_) => retry.next_delay(),
            _ => backoff::OPERATOR,
        }
    }

    /// Waits until what was delivered is on disk, acknowledges it, reports the stop.
    pub(super) async fn finish(mut self) {
        let now = self.clock.now();
        let _ = timeout(FINISH_TIMEOUT, async {
            while self.acks.is_awaiting() {
                let settled = self.sender.settled().await;
                self.acks.settle(&settled);
            }
        })
        .await;
        if let Some((_connection, commands)) = self.last_writer.take() {
            let _ = timeout(FINISH_TIMEOUT, async {
                while self.acks.durable() > 0 {
                    let ids = self.acks.take_durable(ACKNOWLEDGE_MAX);
                    // What is not acknowledged is delivered once more after the next start, and is the same rows.
                    if commands.acknowledge(&ids).await.is_err() {
                        break;
                    }
                }
            })
            .await;
        }
        self.stream.connection.down("stopped".into(), now);
        self.sender.finish(Duration::from_secs(2)).await;
    }
}
