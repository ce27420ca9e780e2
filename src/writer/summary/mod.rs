//! The run row, merged by value from the events of the run.
//!
//! Pure, and the same whether the stored row is known before the events or only after them, so that events need not wait for it:
//! * `start_time` is the earliest time of an event, be it a start event or another: whichever daemon has seen which, the earliest counts;
//! * `last_event_time` is the latest;
//! * the final values are the newest that metrics gave, unless an [end gave them](super::final_values);
//! * the other values are the newest by event time, column by column. A column that is absent takes any value;
//! * `best_val_accuracy` is the greatest (neither NaN nor infinity is one), and `best_epoch` is the epoch it was first seen in;
//! * `tags` are united;
//! * `status`, `end_time` and `restarted_at` follow from [starts and ends](super::lifetime); nothing else changes them.
//!
//! What the stored row does not tell is read from the [history](super::history) of the run when an event needs it: an older event
//! with other values, a start, and metrics after the end. Columns that depend on the stored value are read once more just before
//! they are written: a replay of dead letters, or another daemon, may write the same row.

mod past;
mod restore;
mod shared;

use std::mem;

use self::past::StoredOrigin;
pub use self::past::{History, HistoryRequest};
use super::{
    final_values::{self, Finals},
    lifetime::{Lifetime, is_stored},
    run_columns::{
        BEST, BEST_EPOCH, ColumnSet, DURATION, END, LAST, NEWEST_COLUMNS, READ_MODIFY_WRITE, RESTARTED, START, STATUS,
        TAGS, TIMED_COLUMNS, each_newest, keep_newest, project,
    },
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
    times: [Micros; NEWEST_COLUMNS],
    from_metrics: Finals,
    from_end: Finals,
    lifetime: Lifetime,
    /// The time of the oldest event merged.
    oldest: Micros,
    /// Columns that differ from what is stored.
    pub dirty: ColumnSet,
    /// Whether the stored row is known.
    pub loaded: bool,
    origin: StoredOrigin,
    /// The stored status says that the run has ended, and nothing says when: a person wrote that. It stays until a start that is
    /// later than this, or an end.
    manual_end: Option<Micros>,
    /// What waits for the history of the run.
    unmerged: Option<Box<Summary>>,
}

impl Summary {
    /// Of a run whose stored row is not known yet.
    pub fn not_loaded(run_id: uuid::Uuid) -> Box<Self> {
        Box::new(Self {
            row: RunRow { run_id, ..RunRow::default() },
            times: [Micros::MIN; NEWEST_COLUMNS],
            from_metrics: Finals::default(),
            from_end: Finals::default(),
            lifetime: Lifetime::default(),
            oldest: Micros::MAX,
            dirty: 0,
            loaded: false,
            origin: StoredOrigin { floor: Micros::MIN, lifecycle_known: true, restart_unknown: false, reads_left: 0 },
            manual_end: None,
            unmerged: None,
        })
    }

    /// Merges what an event says. Whether that changes the row; always `true` while something must be read first.
    pub fn apply(&mut self, update: RunUpdate) -> bool {
        if !self.loaded {
            self.merge_update(update);
            return true;
        }
        if let Some(unmerged) = &mut self.unmerged {
            unmerged.merge_update(update);
            return true;
        }
        let before = mem::take(&mut self.dirty);
        if self.may_need_history(&update) {
            let mut unmerged = Self::not_loaded(self.row.run_id);
            unmerged.merge_update(update);
            if self.needs_history(&unmerged) {
                self.unmerged = Some(unmerged);
                self.dirty = before;
                return true;
            }
            self.merge_later(*unmerged);
        } else {
            let lifecycle = update.lifecycle.is_some();
            self.merge_update(update);
            self.recompute(lifecycle);
        }
        let changed = self.dirty != 0;
        self.dirty |= before;
        changed
    }

    /// Merges the stored row, or its absence. On the first read, the events so far are merged into it; on a later one, changes by
    /// other processes are merged into the row to be written.
    pub fn merge_stored(&mut self, stored: Option<RunRow>) {
        match (self.loaded, stored) {
            (true, Some(stored)) => self.merge_reread(stored),
            (true, None) => {}
            (false, Some(stored)) => {
                let said = mem::replace(self, *Self::from_stored(stored));
                if self.needs_history(&said) {
                    self.unmerged = Some(Box::new(said));
                } else {
                    self.merge_later(said);
                }
            }
            (false, None) => {
                let mut new = Self::not_loaded(self.row.run_id);
                new.loaded = true;
                let said = mem::replace(self, *new);
                self.merge_later(said);
            }
        }
    }

    /// Merges an event, but for what follows from all of them.
    fn merge_update(&mut self, mut update: RunUpdate) {
        let time = update.event_time;
        self.consider_best(update.values.final_val_accuracy, update.values.final_epoch);
        self.merge_tags(mem::take(&mut update.values.tags));
        self.lifetime.event(time);
        self.update_last_event(Some(time));
        self.oldest = self.oldest.min(time);
        self.merge_timed(update);
    }

    /// Merges what depends on the time of an event alone, not on when it arrived.
    fn merge_timed(&mut self, update: RunUpdate) {
        let RunUpdate { event_time: time, lifecycle, mut values } = update;
        self.merge_newest(&mut values, [time; NEWEST_COLUMNS]);
        match lifecycle {
            Some(Lifecycle::Start) => self.lifetime.start(self.stored_instant(time)),
            Some(Lifecycle::End(how)) => self.lifetime.end(time, how),
            None => {}
        }
        match lifecycle {
            Some(Lifecycle::End(_)) => self.from_end.merge(&values, time),
            _ => self.from_metrics.merge(&values, time),
        }
    }

    /// Takes the columns whose newest value counts, given at these times.
    fn merge_newest(&mut self, values: &mut RunRow, times: [Micros; NEWEST_COLUMNS]) {
        macro_rules! take {
            ($($at:literal $bit:literal $name:ident),+) => {$(
                if keep_newest(&mut self.row.$name, values.$name.take(), &mut self.times[$at], times[$at]) {
                    self.dirty |= 1 << $bit;
                }
            )+};
        }
        each_newest!(take);
    }

    /// Merges what was said while something was read.
    fn merge_later(&mut self, mut said: Self) {
        self.merge_newest(&mut said.row, said.times);
        self.consider_best(said.row.best_val_accuracy, said.row.best_epoch);
        self.merge_tags(mem::take(&mut said.row.tags));
        self.lifetime.merge_later(&said.lifetime);
        self.from_metrics.merge_later(&said.from_metrics);
        self.from_end.merge_later(&said.from_end);
        self.update_last_event(said.row.last_event_time);
        self.recompute(true);
    }

    /// Puts into the row what follows from all events: the final values and, after a start or an end, when it was.
    fn recompute(&mut self, lifecycle: bool) {
        if lifecycle
            || self.row.start_time.is_none()
            || self.row.status.is_none()
            || self.lifetime.begins_before(self.row.start_time)
        {
            self.apply_lifecycle();
        }
        let restarts = self.lifetime.restarts(self.row.start_time);
        self.dirty |= final_values::select_finals(&mut self.row, &self.from_metrics, &self.from_end, restarts);
    }

    fn apply_lifecycle(&mut self) {
        let (row, lifetime) = (&mut self.row, &self.lifetime);
        let start =
            [row.start_time, lifetime.first_event, lifetime.starts.first().copied()].into_iter().flatten().min();
        let restarted = row.restarted_at.max(lifetime.restarted_at(start));
        let is_closed = self.manual_end.is_some_and(|end| lifetime.starts.last().is_none_or(|start| *start <= end));
        let kept = row.status.clone().filter(|_| is_closed);
        let (end, status) = match lifetime.ended(restarted) {
            Some((end, how)) => (Some(end), how),
            None => (None, kept.as_deref().unwrap_or(status::RUNNING)),
        };
        for (changed, column) in [
            (row.start_time != start, START),
            (row.restarted_at != restarted, RESTARTED),
            (row.end_time != end, END),
            (row.status.as_deref() != Some(status), STATUS),
        ] {
            self.dirty |= if changed { column } else { 0 };
        }
        (row.start_time, row.restarted_at, row.end_time) = (start, restarted, end);
        if row.status.as_deref() != Some(status) {
            row.status = Some(status.to_owned());
        }
        self.update_duration();
    }

    fn merge_reread(&mut self, stored: RunRow) {
        self.merge_stored_end(&stored);
        self.row.restarted_at = self.row.restarted_at.max(stored.restarted_at);
        if let Some(restarted) = stored.restarted_at {
            self.lifetime.restart(restarted);
        }
        let row = &mut self.row;
        if stored.start_time.is_some() && (self.dirty & START == 0 || stored.start_time < row.start_time) {
            row.start_time = stored.start_time;
            self.dirty &= !START;
        }
        let ours = row.best_val_accuracy.filter(|best| best.is_finite());
        let theirs = stored.best_val_accuracy.filter(|best| best.is_finite());
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
        self.recompute(true);
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
    fn merge_stored_end(&mut self, stored: &RunRow) {
        if stored.status.is_some() {
            self.manual_end = unknown_end_bound(stored);
        }
        if self.manual_end.is_some() && stored.status.is_some() {
            self.row.status.clone_from(&stored.status);
        }
        let (Some(end), Some(how)) = (stored.end_time, stored.status.as_deref().and_then(ended_status)) else { return };
        if self.lifetime.is_newer_end(end) {
            // Its own values are to stay, and of a stored row it is not known which those are.
            let unmerged = self.unmerged.get_or_insert_with(|| Self::not_loaded(stored.run_id));
            unmerged.oldest = unmerged.oldest.min(end);
        }
        self.lifetime.end(end, how);
        self.lifetime.ended_as_stored(end, stored.restarted_at);
    }

    /// Whether what is to be written depends on what is stored now.
    pub fn needs_reread(&self) -> bool {
        self.dirty & READ_MODIFY_WRITE != 0
    }

    /// When the run starts, as merged.
    pub fn start(&self) -> Option<Micros> {
        self.row.start_time
    }

    /// The row with these columns only.
    pub fn projected(&self, columns: ColumnSet) -> RunRow {
        project(&self.row, columns)
    }

    /// When the values of the row were said, by the bits of their columns.
    pub fn value_times(&self) -> [Micros; TIMED_COLUMNS] {
        let mut times = [Micros::MIN; TIMED_COLUMNS];
        macro_rules! note {
            ($($at:literal $bit:literal $name:ident),+) => {$( times[$bit] = self.times[$at]; )+};
        }
        each_newest!(note);
        self.from_metrics.value_times(&self.row, &mut times);
        self.from_end.value_times(&self.row, &mut times);
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
            .chain(self.unmerged.as_ref().map(|unmerged| unmerged.text_bytes()))
            .sum()
    }

    /// From start to end.
    fn update_duration(&mut self) {
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
    fn consider_best(&mut self, accuracy: Option<f64>, epoch: Option<i32>) {
        let Some(accuracy) = accuracy.filter(|accuracy| accuracy.is_finite()) else { return };
        let best = self.row.best_val_accuracy.filter(|best| best.is_finite());
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

    fn merge_tags(&mut self, tags: std::collections::BTreeSet<String>) {
        for tag in tags {
            if self.row.tags.len() < crate::wire::TAGS_MAX && self.row.tags.insert(tag) {
                self.dirty |= TAGS;
            }
        }
    }

    fn update_last_event(&mut self, time: Option<Micros>) {
        if time > self.row.last_event_time {
            self.row.last_event_time = time;
            self.dirty |= LAST;
        }
    }
}

/// A stored row that has ended at a time that it does not say: the latest time that its events can have.
fn unknown_end_bound(stored: &RunRow) -> Option<Micros> {
    stored.status.as_deref().and_then(ended_status).filter(|_| stored.end_time.is_none())?;
    let latest = stored.last_event_time.max(stored.start_time).max(stored.restarted_at);
    Some(latest.map_or(Micros::MIN, latest_equivalent))
}

/// The latest time that may be stored as this one: some stores keep milliseconds.
fn latest_equivalent(stored: Micros) -> Micros {
    if stored % 1_000 == 0 { stored.saturating_add(999) } else { stored }
}

/// The stored status of a run that has ended.
fn ended_status(stored: &str) -> Option<&'static str> {
    match stored {
        status::RUNNING => None,
        status::COMPLETED => Some(status::COMPLETED),
        status::FAILED => Some(status::FAILED),
        _ => Some(status::STOPPED),
    }
}
