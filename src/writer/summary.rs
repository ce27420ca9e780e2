//! One run's row, merged by value from what its events say.
//!
//! Pure, and the same whether the stored row is known before the events or only after them, so that events need not wait for it:
//! * `start_time` is the earliest: of start events, and of the event that created the row;
//! * `last_event_time` is the latest;
//! * the final values are the newest that metrics gave, unless an [end gave them](super::finals);
//! * the other values are the newest by event time, column by column. A column that is absent takes any value;
//! * `best_val_accuracy` is the greatest (NaN is none), and `best_epoch` is the epoch it was first seen in;
//! * `tags` are united;
//! * `status`, `end_time` and `restarted_at` follow from [starts and ends](super::lifetime); nothing else changes them.
//!
//! What the stored row does not tell is read from the [history](super::history) of the run, when an event needs it: an older one that
//! says something else, a start, and metrics after the end.
//!
//! A replay of dead letters, or another daemon, may write the same row: what is united with the stored value is read once more just
//! before it is written.

mod past;
mod restore;

use std::mem;

use self::past::Past;
pub use self::past::{History, Wanted, is_stored};
use super::{
    columns::{
        BEST, BEST_EPOCH, COMBINED, Columns, DURATION, END, LAST, NEWEST, RESTARTED, START, STATUS, TAGS, TIMED,
        each_newest, newest, only,
    },
    finals::{self, Finals},
    lifetime::Lifetime,
};
use crate::{
    event::{Lifecycle, RunRow, RunUpdate, status},
    units::Micros,
};

/// What is known of a run.
#[derive(Debug)]
pub struct Summary {
    /// As it is to be shown. Final values, start, end and status are there once the stored row is known.
    row: RunRow,
    /// When each of the newest-value columns was said.
    times: [Micros; NEWEST],
    measured: Finals,
    given: Finals,
    lifetime: Lifetime,
    /// The time of the oldest event merged.
    oldest: Micros,
    /// Columns that differ from what is stored.
    dirty: Columns,
    /// Whether the stored row is known.
    loaded: bool,
    past: Past,
    /// The stored status says that the run has ended, and nothing says when: a person wrote that. It stays until a start that is
    /// later than this, or an end.
    closed: Option<Micros>,
    /// What waits for the history of the run.
    late: Option<Box<Summary>>,
}

impl Summary {
    /// Of a run whose stored row is not known yet.
    pub fn unknown(run_id: uuid::Uuid) -> Box<Self> {
        Box::new(Self {
            row: RunRow { run_id, ..RunRow::default() },
            times: [Micros::MIN; NEWEST],
            measured: Finals::default(),
            given: Finals::default(),
            lifetime: Lifetime::default(),
            oldest: Micros::MAX,
            dirty: 0,
            loaded: false,
            past: Past { floor: Micros::MIN, known: true, blind: false, left: 0 },
            closed: None,
            late: None,
        })
    }

    /// Merges what an event says. Whether that changes the row; always `true` while something must be read first.
    pub fn apply(&mut self, touch: RunUpdate) -> bool {
        if !self.loaded {
            self.take(touch);
            return true;
        }
        if let Some(late) = &mut self.late {
            late.take(touch);
            return true;
        }
        let before = mem::take(&mut self.dirty);
        if self.is_doubtful(&touch) {
            let mut late = Self::unknown(self.row.run_id);
            late.take(touch);
            if self.needs_history(&late) {
                self.late = Some(late);
                self.dirty = before;
                return true;
            }
            self.join(*late);
        } else {
            let lifecycle = touch.lifecycle.is_some();
            self.take(touch);
            self.settle(lifecycle);
        }
        let changed = self.dirty != 0;
        self.dirty |= before;
        changed
    }

    /// The stored row is now known (or known to be absent): what was merged so far is merged into it. Known already: what others
    /// have written since is merged into what is to be written.
    pub fn load(&mut self, stored: Option<RunRow>) {
        match (self.loaded, stored) {
            (true, Some(stored)) => self.refresh(stored),
            (true, None) => {}
            (false, Some(stored)) => {
                let said = mem::replace(self, *Self::stored(stored));
                if self.needs_history(&said) {
                    self.late = Some(Box::new(said));
                } else {
                    self.join(said);
                }
            }
            (false, None) => {
                let mut new = Self::unknown(self.row.run_id);
                new.loaded = true;
                let said = mem::replace(self, *new);
                self.join(said);
            }
        }
    }

    /// Merges an event, but for what follows from all of them.
    fn take(&mut self, mut touch: RunUpdate) {
        let time = touch.event_time;
        self.candidate(touch.values.final_val_accuracy, touch.values.final_epoch);
        self.unite(mem::take(&mut touch.values.tags));
        self.lifetime.first.get_or_insert(time);
        self.last(Some(time));
        self.oldest = self.oldest.min(time);
        self.learn(touch);
    }

    /// Merges what depends on the time of an event alone, not on when it arrived.
    fn learn(&mut self, touch: RunUpdate) {
        let RunUpdate { event_time: time, lifecycle, mut values } = touch;
        macro_rules! take {
            ($($at:literal $bit:literal $name:ident),+) => {$(
                newest(&mut self.row.$name, values.$name.take(), &mut self.times[$at], time, 1 << $bit, &mut self.dirty);
            )+};
        }
        each_newest!(take);
        match lifecycle {
            Some(Lifecycle::Start) => self.lifetime.start(self.stored_instant(time)),
            Some(Lifecycle::End(how)) => self.lifetime.end(time, how),
            None => {}
        }
        match lifecycle {
            Some(Lifecycle::End(_)) => self.given.take(&values, time),
            _ => self.measured.take(&values, time),
        }
    }

    /// Merges what was said while something was read.
    fn join(&mut self, mut said: Self) {
        macro_rules! take {
            ($($at:literal $bit:literal $name:ident),+) => {$(
                let time = said.times[$at];
                newest(&mut self.row.$name, said.row.$name.take(), &mut self.times[$at], time, 1 << $bit, &mut self.dirty);
            )+};
        }
        each_newest!(take);
        self.candidate(said.row.best_val_accuracy, said.row.best_epoch);
        self.unite(mem::take(&mut said.row.tags));
        self.lifetime.join(&said.lifetime);
        self.measured.join(&said.measured);
        self.given.join(&said.given);
        self.last(said.row.last_event_time);
        self.settle(true);
    }

    /// Puts into the row what follows from all events: the final values and, after a start or an end, when it was.
    fn settle(&mut self, lifecycle: bool) {
        if lifecycle || self.row.start_time.is_none() || self.row.status.is_none() {
            self.live();
        }
        let restarts = self.lifetime.restarts(self.row.start_time);
        self.dirty |= finals::show(&mut self.row, &self.measured, &self.given, restarts);
    }

    fn live(&mut self) {
        let (row, lifetime) = (&mut self.row, &self.lifetime);
        let start = row.start_time.or(lifetime.first).into_iter().chain(lifetime.earliest_start()).min();
        let restarted = row.restarted_at.max(lifetime.restarted_at(start));
        let is_closed = self.closed.is_some_and(|closed| lifetime.latest_start().is_none_or(|start| start <= closed));
        let kept = row.status.clone().filter(|_| is_closed);
        let (end, status) = match lifetime.ended(restarted) {
            Some((end, how)) => (Some(end), how),
            None => (None, kept.as_deref().unwrap_or(status::RUNNING)),
        };
        self.dirty |= [
            (row.start_time != start, START),
            (row.restarted_at != restarted, RESTARTED),
            (row.end_time != end, END),
            (row.status.as_deref() != Some(status), STATUS),
        ]
        .into_iter()
        .filter_map(|(changed, column)| changed.then_some(column))
        .fold(0, |columns, column| columns | column);
        (row.start_time, row.restarted_at, row.end_time) = (start, restarted, end);
        if row.status.as_deref() != Some(status) {
            row.status = Some(status.to_owned());
        }
        self.measure();
    }

    fn refresh(&mut self, stored: RunRow) {
        self.refresh_end(&stored);
        self.row.restarted_at = self.row.restarted_at.max(stored.restarted_at);
        if let Some(restarted) = stored.restarted_at {
            self.lifetime.restart(restarted);
        }
        let row = &mut self.row;
        if stored.start_time.is_some() && (self.dirty & START == 0 || stored.start_time < row.start_time) {
            row.start_time = stored.start_time;
            self.dirty &= !START;
        }
        let ours = row.best_val_accuracy.filter(|best| !best.is_nan());
        let theirs = stored.best_val_accuracy.filter(|best| !best.is_nan());
        if theirs.is_some_and(|theirs| ours.is_none_or(|ours| theirs > ours)) {
            (row.best_val_accuracy, row.best_epoch) = (theirs, stored.best_epoch);
            self.dirty &= !(BEST | BEST_EPOCH);
        }
        row.tags.extend(stored.tags.iter().cloned());
        if row.tags == stored.tags {
            self.dirty &= !TAGS;
        }
        if stored.last_event_time >= row.last_event_time {
            row.last_event_time = stored.last_event_time;
            self.dirty &= !LAST;
        }
        self.settle(true);
        let is_same = |ours: Option<Micros>, theirs: Option<Micros>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => is_stored(theirs, ours),
            (ours, theirs) => ours == theirs,
        };
        for (same, columns) in [
            (self.row.status == stored.status, STATUS),
            (is_same(self.row.restarted_at, stored.restarted_at), RESTARTED),
            (is_same(self.row.end_time, stored.end_time), END),
            (self.row.duration_seconds == stored.duration_seconds, DURATION),
        ] {
            self.dirty = if same { self.dirty & !columns } else { self.dirty | columns };
        }
    }

    /// Takes in how the stored row says that the run ended, if it does.
    fn refresh_end(&mut self, stored: &RunRow) {
        if stored.status.is_some() {
            self.closed = closed(stored);
        }
        if self.closed.is_some() && stored.status.is_some() {
            self.row.status.clone_from(&stored.status);
        }
        let (Some(end), Some(how)) = (stored.end_time, stored.status.as_deref().and_then(ended)) else { return };
        if self.lifetime.is_news(end) {
            // Its own values are to stay, and of a stored row it is not known which those are.
            let late = self.late.get_or_insert_with(|| Self::unknown(stored.run_id));
            late.oldest = late.oldest.min(end);
        }
        self.lifetime.end(end, how);
        self.lifetime.ended_as_stored(end, stored.restarted_at);
    }

    /// Whether what is to be written depends on what is stored now.
    pub fn combines(&self) -> bool {
        self.dirty & COMBINED != 0
    }

    /// Whether the stored row is known.
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// The columns that differ from what is stored.
    pub fn dirty(&self) -> Columns {
        self.dirty
    }

    /// Takes the changed columns for a write.
    pub fn take_dirty(&mut self) -> Columns {
        mem::take(&mut self.dirty)
    }

    /// The write of these columns failed.
    pub fn put_back(&mut self, columns: Columns) {
        self.dirty |= columns;
    }

    /// When the run starts, as merged.
    pub fn start(&self) -> Option<Micros> {
        self.row.start_time
    }

    /// The row with these columns only.
    pub fn change(&self, columns: Columns) -> RunRow {
        only(&self.row, columns)
    }

    /// When the values of the row were said, by the bits of their columns.
    pub fn said_at(&self) -> [Micros; TIMED] {
        let mut times = [Micros::MIN; TIMED];
        macro_rules! note {
            ($($at:literal $bit:literal $name:ident),+) => {$( times[$bit] = self.times[$at]; )+};
        }
        each_newest!(note);
        self.measured.shown_since(&self.row, &mut times);
        self.given.shown_since(&self.row, &mut times);
        times
    }

    /// Roughly how much memory its texts take.
    pub fn text_bytes(&self) -> usize {
        let row = &self.row;
        [&row.run_name, &row.dataset_name, &row.notes, &row.created_by]
            .into_iter()
            .flatten()
            .map(String::len)
            .chain(row.config_json.as_ref().map(|config| config.len()))
            .chain(row.tags.iter().map(|tag| tag.len() + 64))
            .chain(self.late.as_ref().map(|late| late.text_bytes()))
            .sum()
    }

    /// From start to end.
    fn measure(&mut self) {
        let row = &mut self.row;
        let seconds = row
            .start_time
            .zip(row.end_time)
            .map(|(start, end)| i32::try_from(end.saturating_sub(start).max(0) / 1_000_000).unwrap_or(i32::MAX));
        if row.duration_seconds != seconds {
            row.duration_seconds = seconds;
            self.dirty |= DURATION;
        }
    }

    /// A validation accuracy that may be the best.
    fn candidate(&mut self, accuracy: Option<f64>, epoch: Option<i32>) {
        let Some(accuracy) = accuracy.filter(|accuracy| !accuracy.is_nan()) else { return };
        let best = self.row.best_val_accuracy.filter(|best| !best.is_nan());
        let better = best.is_none_or(|best| accuracy > best);
        if better {
            self.row.best_val_accuracy = Some(accuracy);
            self.dirty |= BEST;
        }
        let tie = best.is_some_and(|best| accuracy == best) && self.row.best_epoch.is_none();
        if (better || tie) && epoch.is_some() && self.row.best_epoch != epoch {
            self.row.best_epoch = epoch;
            self.dirty |= BEST_EPOCH;
        }
    }

    fn unite(&mut self, tags: std::collections::BTreeSet<String>) {
        for tag in tags {
            if self.row.tags.len() < crate::wire::TAGS_MAX && self.row.tags.insert(tag) {
                self.dirty |= TAGS;
            }
        }
    }

    fn last(&mut self, time: Option<Micros>) {
        if time > self.row.last_event_time {
            self.row.last_event_time = time;
            self.dirty |= LAST;
        }
    }
}

/// A stored row that has ended at a time that it does not say: the latest time that its events can have.
fn closed(stored: &RunRow) -> Option<Micros> {
    stored.status.as_deref().and_then(ended).filter(|_| stored.end_time.is_none())?;
    let latest = stored.last_event_time.max(stored.start_time).max(stored.restarted_at);
    Some(latest.map_or(Micros::MIN, whole))
}

/// The latest time that may be stored as this one: some stores keep milliseconds.
fn whole(stored: Micros) -> Micros {
    if stored % 1_000 == 0 { stored.saturating_add(999) } else { stored }
}

/// The stored status of a run that has ended.
fn ended(stored: &str) -> Option<&'static str> {
    match stored {
        status::RUNNING => None,
        status::COMPLETED => Some(status::COMPLETED),
        status::FAILED => Some(status::FAILED),
        _ => Some(status::STOPPED),
    }
}
