//! Reads over one pair of connections until they are lost, or until Redis refuses.

use std::{
    future::{pending, poll_fn},
    mem,
    pin::Pin,
    time::Duration,
};

use fred::error::{Error as RedisError, ErrorKind};
use futures_util::FutureExt;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};

use super::{
    commands::{Commands, READ_BLOCK, Trouble},
    consumer::{ACKNOWLEDGE_MAX, Consumer},
    look_after::{Claiming, Task, Upkeep, look_after},
    pace::Pace,
    reply::Entry,
    session::{End, Session},
};
use crate::{event::EntryId, frame::Settled, lifecycle::Signal};

/// How often the state of the stream is asked for, and gaps are sent.
const TICK: Duration = Duration::from_secs(1);
/// What intake has refused, because the disk has no room, is delivered again after this long.
const REFUSED_DELAY: Duration = Duration::from_millis(500);

/// How long the answer to the last read may take behind its end.
const LAST_READ_MARGIN: Duration = Duration::from_millis(200);

/// An answer to a command, awaited while further events are handled.
type Awaited<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// What is under way.
struct UnderWay {
    read: Awaited<Result<Vec<Entry>, Trouble>>,
    /// Entries that it asks for at most.
    asked: usize,
    pace: Pace,
    acknowledge: Awaited<Result<(), Trouble>>,
    upkeep: Awaited<Result<Upkeep, Trouble>>,
    ticks: Interval,
    /// Up to where the own pending entries were read; absent: all were.
    own: Option<EntryId>,
    /// Until when nothing is read, because intake has refused entries.
    paused_until: Option<Instant>,
    /// Whether the own pending entries are to be read again, because some of them were refused.
    again: bool,
    claiming: Claiming,
}

/// What has happened.
enum Happened {
    Stopped,
    Acknowledged(Result<(), Trouble>),
    Settled(Vec<Settled>),
    Read(Result<Vec<Entry>, Trouble>),
    LookedAfter(Box<Result<Upkeep, Trouble>>),
    Resumed,
    /// The entries of a window have gathered.
    Gathered,
    Ticked,
    Lost,
}

impl Consumer {
    /// Reads until told to stop, or until something is wrong.
    pub(super) async fn read(&mut self, mut session: Session, stop: &mut Signal) -> End {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut under_way = UnderWay {
            read: None,
            asked: 0,
            pace: Pace::default(),
            acknowledge: None,
            upkeep: None,
            ticks,
            own: Some(EntryId::default()),
            paused_until: None,
            again: false,
            claiming: Claiming::new(self.stream.redis.claim_after),
        };
        let commands = session.writing.clone();
        let end = loop {
            self.begin(&session, &mut under_way);
            let happened = self.next(&mut session, &mut under_way, stop).await;
            if let Err(end) = self.handle(happened, &commands, &mut under_way).await {
                break end;
            }
        };
        // Sent and not answered: it may have worked or not, and may be sent again.
        self.ledger.not_acknowledged();
        if matches!(end, End::Stopped) {
            self.take_last_read(&mut under_way).await;
            self.keep_for_last(session);
        }
        end
    }

    /// When stopping: what Redis hands out to the read that is under way would wait for another daemon to claim it.
    async fn take_last_read(&mut self, under_way: &mut UnderWay) {
        let Some(read) = under_way.read.take() else { return };
        let last = async {
            if let Ok(entries) = read.await {
                // Intake may have ended: they are delivered again after the next start.
                let _ = self.deliver(entries).await;
            }
        };
        let _ = timeout(READ_BLOCK + LAST_READ_MARGIN, last).await;
    }

    /// Begins what can be begun.
    fn begin(&mut self, session: &Session, under_way: &mut UnderWay) {
        let count = self.room();
        if under_way.pace.gathers_until().is_some() {
            if count > 0 {
                return;
            }
            under_way.pace.end();
        }
        let now = Instant::now();
        // Only acknowledged entries make room.
        let urgent = count == 0 || self.ledger.durable() >= ACKNOWLEDGE_MAX;
        if under_way.acknowledge.is_none() && (urgent || under_way.pace.acknowledges(now)) {
            let ids = self.ledger.take_durable(ACKNOWLEDGE_MAX);
            if !ids.is_empty() {
                under_way.pace.acknowledged(now);
                let commands = session.writing.clone();
                under_way.acknowledge = Some(Box::pin(async move { commands.acknowledge(&ids).await }));
            }
        }
        if under_way.read.is_some() || under_way.paused_until.is_some() {
            return;
        }
        if count == 0 {
            return;
        }
        // Not while a read is under way, whose answer would count as one of theirs.
        if mem::take(&mut under_way.again) {
            under_way.own = Some(EntryId::default());
        }
        let (commands, own, wait) = (session.reading.clone(), under_way.own, under_way.pace.waits());
        under_way.asked = count;
        under_way.read = Some(match own {
            Some(after) => Box::pin(async move { commands.read_own(after, count).await }),
            None => Box::pin(async move { commands.read_new(count, wait).await }),
        });
    }

    /// Entries that may be read now.
    pub(super) fn room(&self) -> usize {
        let frames = self.stream.frames_max.saturating_sub(self.ledger.entries());
        let bytes = match self.ledger.bytes() {
            // Even the largest entry is read at some time.
            0 => self.stream.bytes_max.max(1),
            bytes => self.stream.bytes_max.saturating_sub(bytes),
        };
        self.size.next(frames, bytes)
    }

    async fn next(&mut self, session: &mut Session, under_way: &mut UnderWay, stop: &mut Signal) -> Happened {
        let (resumed, gathers_until) = (at(under_way.paused_until), under_way.pace.gathers_until());
        tokio::select! {
            biased;
            () = stop.stopped() => Happened::Stopped,
            answer = wait(&mut under_way.acknowledge) => Happened::Acknowledged(answer),
            // What becomes durable within the window is acknowledged at its end.
            settled = self.sender.settled(), if gathers_until.is_none() => Happened::Settled(settled),
            entries = wait(&mut under_way.read) => Happened::Read(entries),
            upkeep = wait(&mut under_way.upkeep) => Happened::LookedAfter(Box::new(upkeep)),
            () = resumed => Happened::Resumed,
            () = at(gathers_until) => Happened::Gathered,
            _ = under_way.ticks.tick() => Happened::Ticked,
            _ = session.reader.lost() => Happened::Lost,
            _ = session.writer.lost() => Happened::Lost,
        }
    }

    async fn handle(&mut self, happened: Happened, commands: &Commands, under_way: &mut UnderWay) -> Result<(), End> {
        match happened {
            Happened::Stopped => return Err(End::Stopped),
            Happened::Acknowledged(answer) => {
                answer?;
                let count = self.ledger.acknowledged();
                self.stream.metrics.stream_acknowledged.of(self.stream.label).inc_by(count);
                self.stream.status.change(|status| status.acknowledged += count);
            }
            Happened::Settled(settled) => self.settle(&settled, under_way),
            Happened::Read(entries) => self.on_read(entries?, under_way).await?,
            Happened::LookedAfter(upkeep) => self.on_upkeep((*upkeep)?, &mut under_way.claiming).await?,
            Happened::Resumed => (under_way.paused_until, under_way.again) = (None, true),
            Happened::Gathered => {
                under_way.pace.end();
                // Taken in before the next read begins: then both commands are sent together.
                if let Some(settled) = self.sender.settled().now_or_never() {
                    self.settle(&settled, under_way);
                }
            }
            Happened::Ticked => {
                self.stream.metrics.source_queue_depth.set(self.sender.depth() as i64);
                self.sender.flush_gaps(Instant::now())?;
                let unacknowledged = self.ledger.entries() as u64;
                self.stream.status.change(|status| status.unacknowledged = unacknowledged);
                if under_way.upkeep.is_none() {
                    let due = under_way.claiming.due(self.room());
                    let task = Task { reporter: self.reporter(), gone: self.take_gone(), due };
                    under_way.upkeep = Some(Box::pin(look_after(commands.clone(), task)));
                }
            }
            Happened::Lost => {
                let closed = RedisError::new(ErrorKind::IO, "it was closed");
                return Err(End::Trouble(Trouble::Lost(closed)));
            }
        }
        Ok(())
    }

    fn settle(&mut self, settled: &[Settled], under_way: &mut UnderWay) {
        if self.ledger.settle(settled) > 0 {
            under_way.paused_until = Some(Instant::now() + REFUSED_DELAY);
        }
    }

    async fn on_read(&mut self, entries: Vec<Entry>, under_way: &mut UnderWay) -> Result<(), End> {
        self.answered = true;
        self.size.answered(entries.iter().map(|entry| entry.message.as_ref().map_or(0, bytes::Bytes::len)));
        if under_way.own.is_none() {
            under_way.pace.answered(entries.len(), under_way.asked, Instant::now());
            if !entries.is_empty() && under_way.pace.gathers_until().is_none() {
                // More are there: the parts of a long answer are taken in together.
                self.sender.coalesce();
            }
        }
        if let Some(after) = under_way.own {
            // The own pending entries end where there are no more.
            under_way.own = entries.last().map(|last| last.id).filter(|last| *last > after);
        }
        Ok(self.deliver(entries).await?)
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
async fn wait<T>(awaited: &mut Awaited<T>) -> T {
    let answer = poll_fn(|context| match awaited {
        Some(future) => future.as_mut().poll(context),
        None => std::task::Poll::Pending,
    })
    .await;
    *awaited = None;
    answer
}
