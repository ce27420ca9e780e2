//! Dead letters, once more: decoded again, stored, and dropped once the store has confirmed them.
//!
//! A letter's rows have the keys that its first receipt would have given them: its time of receipt, channel and bytes are those of
//! then. Its run is the one that was decided; else the message's own, else the one that was open on its channel when it was
//! rejected, else one named after it. So a second replay writes the same rows.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::tz::TimeZone;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    decode::Decoder,
    refill::{RefillError, Until, beside, pump, reach},
    stores,
};
use crate::{
    config::{self, Settings},
    dead_letter::{self, Browser, DeadLetterError, DeadLetterInfo, Filter, Letter as Kept},
    event::{Decided, Kind, implicit_run_id},
    frame::{Reason, Rejection, SetAside},
    lifecycle::Signal,
    metrics::Metrics,
    spool::{Record, RecordKind},
    store::BoxError,
    wire,
    writer::{self, Aside, Chunk, Commit, Content, Decoded, Letter, Records},
};

/// What became of the letters.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// Stored, and dropped.
    pub stored: u64,
    /// Failed again, and kept with the reason of now; with their ids.
    pub failed: Vec<(u64, Rejection)>,
    /// Cannot be replayed, because not all of their bytes were kept.
    pub cut: u64,
}

/// Replays the letters that the filter takes. `tell` hears how many of how many are done.
///
/// # Errors
/// When the store is away, or the letters cannot be read or marked. What was stored by then is dropped all the same.
pub async fn replay(
    settings: &Settings,
    filter: Filter,
    mut tell: impl FnMut(u64, u64),
) -> Result<Replayed, RefillError> {
    let (ids, cut) = wanted(settings, &filter).map_err(RefillError::DeadLetters)?;
    let Some(last) = ids.last().copied() else { return Ok(Replayed { cut, ..Replayed::default() }) };
    let metrics = Metrics::new();
    let (_stopper, stop) = Signal::new();
    let (store, upkeep) = stores::open(settings, &metrics, stop);
    let shared = Arc::new(Shared::new(settings));
    let linger = || if store.forgets() { settings.spool.linger } else { Duration::ZERO };
    let work = async {
        reach(&*store).await?;
        let commit = Confirmed(Arc::clone(&shared));
        let dir = settings.dead_letter.dir.clone();
        let records = Letters { dir, filter, browser: None, shared: Arc::clone(&shared) };
        let until = Until {
            first: 0,
            finished: || shared.lock().unreadable.is_some() || shared.confirmed(linger()) > last,
            tell: |at: u64| tell(ids.partition_point(|id| *id < at) as u64, ids.len() as u64),
        };
        pump(settings, &store, &metrics, (records, commit, Arc::clone(&shared)), until).await
    };
    let outcome = beside(upkeep, work).await;
    let confirmed = shared.confirmed(linger());
    let failed = std::mem::take(&mut shared.lock().failed);
    let stored: Vec<_> = ids.into_iter().filter(|id| *id < confirmed && !failed.contains_key(id)).collect();
    let failed: Vec<_> = failed.into_iter().filter(|(id, _)| *id < confirmed).collect();
    let count = stored.len() as u64;
    dead_letter::marks::mark(&settings.dead_letter.dir, stored, failed.clone()).map_err(RefillError::DeadLetters)?;
    outcome?;
    match shared.lock().unreadable.take() {
        Some(error) => Err(RefillError::DeadLetters(error)),
        None => Ok(Replayed { stored: count, failed, cut }),
    }
}

/// The ids of those that can be replayed, and how many cannot.
fn wanted(settings: &Settings, filter: &Filter) -> Result<(Vec<u64>, u64), DeadLetterError> {
    let letters = dead_letter::list(&settings.dead_letter.dir, filter)?;
    let (whole, cut): (Vec<_>, Vec<_>) = letters.iter().partition(|info| is_whole(info));
    Ok((whole.iter().map(|info| info.id).collect(), cut.len() as u64))
}

fn is_whole(info: &DeadLetterInfo) -> bool {
    info.kept == info.length && !info.channel.is_empty()
}

/// What the ends of the writer share.
struct Shared {
    /// For what intake accepted once.
    wide: Decoder,
    /// For what it rejected: under the limits of now.
    limited: Decoder,
    limits: wire::Limits,
    zone: TimeZone,
    control_channels: Vec<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failed: BTreeMap<u64, Rejection>,
    /// Everything below is stored, or has failed; since when.
    confirmed: Option<(u64, Instant)>,
    unreadable: Option<DeadLetterError>,
}

impl Shared {
    fn new(settings: &Settings) -> Self {
        Self {
            wide: Decoder::new(&settings.instance),
            limited: Decoder::limited(&settings.instance, settings.limits.clone()),
            limits: settings.limits.clone(),
            zone: TimeZone::get(&settings.intake.time_zone).unwrap_or(TimeZone::UTC),
            control_channels: settings.redis.control_channels.clone(),
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a store that may forget for so long has confirmed for good.
    fn confirmed(&self, linger: Duration) -> u64 {
        self.lock().confirmed.filter(|(_, at)| at.elapsed() >= linger).map_or(0, |(next, _)| next)
    }

    fn content(&self, letter: &Kept) -> Content {
        let record = |kind, decided| Record {
            offset: letter.info.id,
            kind,
            decided,
            channel: &letter.info.channel,
            payload: &letter.payload,
        };
        match letter.kind {
            RecordKind::Rejected if self.is_control(&letter.info.channel) => {
                self.limited.content(&record(RecordKind::Control, letter.decided))
            }
            RecordKind::Rejected => match self.decide(letter) {
                Ok(decided) => self.limited.content(&record(RecordKind::Event, decided)),
                Err(rejection) => {
                    let (aside, _) = SetAside::new(rejection, &letter.payload);
                    Content::Aside {
                        channel: letter.info.channel.clone(),
                        aside,
                        kept: Vec::new(),
                        run_id: Uuid::nil(),
                    }
                }
            },
            kind => self.wide.content(&record(kind, letter.decided)),
        }
    }

    /// What intake would have decided.
    fn decide(&self, letter: &Kept) -> Result<Decided, Rejection> {
        let message = wire::decode(&letter.payload, &self.limits)?;
        let received_at = letter.decided.received_at;
        let time = message.time(received_at, &self.zone);
        let open = Some(letter.decided.run_id).filter(|run| !run.is_nil() && message.kind() != Kind::RunStart);
        let named = || implicit_run_id(&letter.info.channel, time.event_time, &letter.payload);
        let run_id = message.run_id().or(open).unwrap_or_else(named);
        let opened = message.run_id().is_none() && open.is_none();
        Ok(Decided { run_id, event_time: time.event_time, received_at, own_time: time.own, opened })
    }

    fn is_control(&self, channel: &str) -> bool {
        self.control_channels.iter().any(|pattern| config::overlap(pattern.as_bytes(), channel.as_bytes()))
    }
}

/// The letters, as the writer reads them.
struct Letters {
    dir: PathBuf,
    filter: Filter,
    browser: Option<Browser>,
    shared: Arc<Shared>,
}

struct Several {
    letters: Vec<Kept>,
    shared: Arc<Shared>,
}

impl Letters {
    fn read(&mut self) -> Result<Vec<Kept>, DeadLetterError> {
        let browser = match &mut self.browser {
            Some(browser) => browser,
            None => self.browser.insert(Browser::open(&self.dir, self.filter.clone())?),
        };
        browser.next_letters()
    }
}

impl Records for Letters {
    type Chunk = Several;

    async fn next(&mut self) -> Several {
        match self.read() {
            Ok(letters) if !letters.is_empty() => {
                let letters = letters.into_iter().filter(|letter| is_whole(&letter.info)).collect();
                return Several { letters, shared: Arc::clone(&self.shared) };
            }
            Ok(_) => {}
            Err(error) => self.shared.lock().unreadable = Some(error),
        }
        std::future::pending().await
    }

    fn rewind(&mut self, _offset: u64) {
        self.browser = None;
    }
}

impl Chunk for Several {
    fn records(&self) -> impl Iterator<Item = Decoded> + Send {
        self.letters.iter().map(|letter| Decoded {
            offset: letter.info.id,
            received_at: letter.decided.received_at,
            content: self.shared.content(letter),
        })
    }
}

struct Confirmed(Arc<Shared>);

impl Commit for Confirmed {
    fn commit(&self, next: u64) {
        let mut state = self.0.lock();
        if state.confirmed.is_none_or(|(known, _)| next > known) {
            state.confirmed = Some((next, Instant::now()));
        }
    }

    /// The store may have forgotten anything: all of it once more.
    fn withdraw(&self) -> u64 {
        let mut state = self.0.lock();
        (state.confirmed, state.failed) = (None, BTreeMap::new());
        0
    }
}

impl Aside for Shared {
    async fn put(&self, letters: &[Letter]) -> Result<(), BoxError> {
        let mut state = self.lock();
        for letter in letters {
            let rejection = match &letter.kept {
                writer::Kept::Message { aside, .. } => aside.rejection.clone(),
                writer::Kept::Refused { error, .. } => {
                    Rejection { reason: Reason::RejectedByStore, detail: error.clone() }
                }
            };
            state.failed.insert(letter.offset, rejection);
        }
        Ok(())
    }
}
