//! A running source: opens sessions, delivers entries, reports what is wrong, and acknowledges the last entries when stopping.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::{
    accounts::{counts_key, former_counts_key},
    commands::{Commands, Trouble},
    ledger::Ledger,
    read_size::ReadSize,
    reply::{Entry, Snapshot},
    report::{OtherReport, Reporter},
    session::Session,
    source::Stream,
    trimmed::removed,
    went_back::lacks,
};
use crate::{
    backoff::{self, Backoff},
    event::EntryId,
    frame::Frame,
    gaps::GapReason,
    redis::{Acl, Role as ConnectionRole, connect},
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
/// Between these the time of an entry id is believed to be one, and the message's own time is judged by it: so that each delivery
/// comes to the same judgement.
pub(super) const PLAUSIBLE_IDS: std::ops::Range<Micros> = 946_684_800_000_000..4_102_444_800_000_000;

/// A running source.
pub(super) struct Consumer {
    pub(super) stream: Stream,
    acl: Acl,
    pub(super) sender: QueueSender,
    pub(super) clock: ReceiveClock,
    pub(super) ledger: Ledger,
    pub(super) size: ReadSize,
    /// Whether there has been a session: then a group that is not there was destroyed.
    had_group: bool,
    /// The newest state of the stream, and when it was asked for.
    pub(super) seen: Option<(Micros, Snapshot)>,
    /// The newest entry that was read.
    pub(super) newest: Option<EntryId>,
    /// Entries that are reported as trimmed by now, as the server counts them.
    pub(super) trimmed_before: u64,
    /// Entries that were removed from the stream, by trimming or else, when all losses were reported last.
    pub(super) removed_before: Option<u64>,
    /// The first moment of the newest loss: that of the next is later, because the rows of losses are known by it.
    last_loss: Micros,
    /// Own pending entries that are no longer in the stream.
    gone: Vec<EntryId>,
    pub(super) other_report: OtherReport,
    /// Whether the present session has had an answer.
    pub(super) answered: bool,
    /// To acknowledge the last entries.
    last_commands: Option<Session>,
}

impl Consumer {
    pub(super) fn new(stream: Stream, sender: QueueSender) -> Self {
        let acl = Acl::of(&stream.redis);
        Self {
            stream,
            acl,
            sender,
            clock: ReceiveClock::default(),
            ledger: Ledger::default(),
            size: ReadSize::default(),
            had_group: false,
            seen: None,
            newest: None,
            trimmed_before: 0,
            removed_before: None,
            last_loss: 0,
            gone: Vec::new(),
            other_report: OtherReport::default(),
            answered: false,
            last_commands: None,
        }
    }

    /// Connects, makes the group where it is missing, and finds out whether entries can be acknowledged.
    pub(super) async fn open(&mut self) -> Result<Session, Trouble> {
        self.answered = false;
        self.ledger.begin_session();
        self.gone.clear();
        // A read that waits blocks its connection.
        let reader = connect(&self.stream.redis, ConnectionRole::Commands).await?;
        let writer = connect(&self.stream.redis, ConnectionRole::Commands).await?;
        let [reading, writing] = [&reader, &writer].map(|connected| Commands {
            client: connected.client.clone(),
            acl: self.acl.clone(),
            key: self.stream.name.to_string(),
            group: self.stream.redis.group.clone(),
            consumer: self.stream.consumer.clone(),
            notes: counts_key(&self.stream.redis.key_prefix, &self.stream.name),
            former_notes: former_counts_key(&self.stream.redis.key_prefix, &self.stream.name),
        });
        let session = Session { reader, writer, reading, writing };
        let before = match session.writing.look().await {
            Ok(before) => before,
            // Without the permission the lag is unknown.
            Err(Trouble::Refused(refusal)) => {
                self.stream.status.change(|status| status.error = Some(refusal.to_string()));
                None
            }
            Err(trouble) => return Err(trouble),
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
                self.on_recovery(before.as_ref());
            }
            (self.trimmed_before, self.removed_before) = (known, None);
        } else if let (Some(before), Some(newest)) = (&before, self.newest)
            && lacks(&session.writing, before, newest).await
        {
            self.on_went_back();
        }
        // Acknowledges nothing, but says whether it may.
        session.writing.acknowledge(&[EntryId::default()]).await?;
        self.had_group = true;
        self.report_up();
        if let Ok(Some(now)) = session.writing.look().await {
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
    fn on_recovery(&mut self, before: Option<&Snapshot>) {
        let now = self.clock.now();
        let last = self.seen.as_ref().map(|(at, seen)| (*at, seen.last_generated));
        let stream_kept =
            before.is_some_and(|stream| last.is_none_or(|(_, generated)| stream.last_generated >= generated));
        let what = if stream_kept { "the consumer group was destroyed" } else { "the stream was deleted or replaced" };
        if !stream_kept {
            let since = last.map_or(now, |(at, _)| at);
            self.sender.record_gap(GapReason::StreamReset, since, now, Some(self.stream.name.to_string()));
        }
        self.note_recovery(what);
        (self.seen, self.newest) = (None, None);
    }

    /// The server lacks the newest entry that was read. Reading goes on where the group is: what is read once more is the same row.
    fn on_went_back(&mut self) {
        let now = self.clock.now();
        let since = self.seen.as_ref().map_or(now, |(at, _)| *at);
        self.sender.record_gap(GapReason::StreamReset, since, now, Some(self.stream.name.to_string()));
        self.removed_before = None;
        self.note_recovery("the server lacks entries that were read from it, as a replica that was behind does");
        (self.seen, self.newest) = (None, None);
    }

    fn note_recovery(&mut self, what: &str) {
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
        for entry in entries.into_iter().filter(|entry| self.ledger.is_new(entry.id)).collect::<Vec<_>>() {
            let Some(message) = entry.message else {
                // It was trimmed or deleted, and cannot be delivered any more.
                self.gone.push(entry.id);
                continue;
            };
            bytes += message.len();
            self.newest = self.newest.max(Some(entry.id));
            self.ledger.delivered(entry.id, message.len());
            let at = entry.id.micros();
            frames.push(Frame {
                channel: self.stream.name.clone(),
                payload: message,
                received_at: if PLAUSIBLE_IDS.contains(&at) { at } else { self.clock.now() },
                received,
                control: false,
                entry: Some(entry.id),
            });
        }
        self.stream.metrics.source_messages.inc_by(frames.len() as u64);
        self.stream.metrics.source_bytes.inc_by(bytes as u64);
        self.sender.deliver(&mut frames).await
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

    /// First and last moment of a loss that is found now: since the last look.
    fn time_of_loss(&mut self) -> (Micros, Micros) {
        let now = self.clock.now();
        self.last_loss = self.seen.as_ref().map_or(now, |(at, _)| *at).max(self.last_loss + 1);
        (self.last_loss, now)
    }

    /// Reports what the next look finds.
    pub(super) fn reporter(&mut self) -> Reporter {
        let (since, until) = self.time_of_loss();
        let gaps = self.sender.durable_gaps();
        Reporter::new(gaps, since..until, self.removed_before, &self.other_report)
    }

    /// Takes entries to let go.
    pub(super) fn take_gone(&mut self) -> Vec<EntryId> {
        self.gone.drain(..self.gone.len().min(ACKNOWLEDGE_MAX)).collect()
    }

    /// Says what is wrong, and when to try again.
    pub(super) fn on_trouble(&mut self, trouble: &Trouble, retry: &mut Backoff) -> Duration {
        if self.answered {
            retry.reset();
        }
        let (text, now) = (trouble.text(), self.clock.now());
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
        match trouble {
            Trouble::Connect(error) => error.retry_delay(retry),
            Trouble::Lost(_) | Trouble::Gone(_) => retry.next_delay(),
            _ => backoff::OPERATOR,
        }
    }

    /// Keeps the connections of a session that ends because the program stops.
    pub(super) fn keep_for_last(&mut self, session: Session) {
        self.last_commands = Some(session);
    }

    /// Waits until what was delivered is on disk, acknowledges it, reports the stop.
    pub(super) async fn finish(mut self) {
        let now = self.clock.now();
        let _ = timeout(FINISH_TIMEOUT, async {
            while self.ledger.is_awaiting() {
                let settled = self.sender.settled().await;
                self.ledger.settle(&settled);
            }
        })
        .await;
        if let Some(session) = self.last_commands.take() {
            let _ = timeout(FINISH_TIMEOUT, async {
                while self.ledger.durable() > 0 {
                    let ids = self.ledger.take_durable(ACKNOWLEDGE_MAX);
                    // What is not acknowledged is delivered once more after the next start, and is the same rows.
                    if session.writing.acknowledge(&ids).await.is_err() {
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
