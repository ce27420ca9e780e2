//! One run's row, merged by value from what its events say.
//!
//! Pure, and the same whether the stored row is known before the events or only after them, so that events need not wait for it:
//! * `start_time` is the earliest: of start events, and of the event that created the row;
//! * `last_event_time` is the latest;
//! * the other values are the newest by event time, column by column; of a column read from the store only the row's
//!   `last_event_time` is known, so it counts as being that new. A column that is absent takes any value;
//! * `best_val_accuracy` is the greatest (NaN is none), and `best_epoch` is the epoch it was first seen in;
//! * `tags` are united;
//! * `status` is `running` from the first event on. An end not older than the stored one sets it, with `end_time`; a start later
//!   than that end makes the run run again; nothing else changes it.
//!
//! A replay of dead letters, or another daemon, may write the same row: what is united with the stored value is read once more just
//! before it is written.

use std::mem;

use crate::{
    event::{Lifecycle, RunRow, RunTouch, status},
    units::Micros,
};

/// Columns, as a set of bits.
pub type Columns = u32;

/// Calls the macro with every column whose newest value counts: its number and its name.
macro_rules! newest {
    ($call:ident) => {
        $call! {
            0 run_name, 1 dataset_name, 2 dataset_size, 3 config_json, 4 final_epoch, 5 final_train_loss,
            6 final_train_accuracy, 7 final_val_loss, 8 final_val_accuracy, 9 total_hidden_units, 10 total_parameters,
            11 notes, 12 created_by
        }
    };
}

// Below the macro, which it uses.
mod restore;

/// The number of columns whose newest value counts.
const NEWEST: usize = 13;
const START: Columns = 1 << 13;
const END: Columns = 1 << 14;
const DURATION: Columns = 1 << 15;
const STATUS: Columns = 1 << 16;
const BEST: Columns = 1 << 17;
const BEST_EPOCH: Columns = 1 << 18;
/// The tags.
pub const TAGS: Columns = 1 << 19;
const LAST: Columns = 1 << 20;
/// Columns whose new value depends on the stored one, which others may have changed since it was read.
const COMBINED: Columns = START | BEST | BEST_EPOCH | TAGS;

/// What is known of a run.
#[derive(Debug)]
pub struct Summary {
    row: RunRow,
    /// When each of the newest-value columns was said.
    times: [Micros; NEWEST],
    /// Columns that differ from what is stored.
    dirty: Columns,
    /// Until the stored row is known: what must be applied to it in order.
    early: Option<Early>,
}

#[derive(Debug, Default)]
struct Early {
    /// The time of the first event seen: the start, should the row be new.
    first: Option<Micros>,
    /// Starts and ends, in the order of the log.
    lifecycle: Vec<(Micros, Lifecycle)>,
}

/// Whether the column takes the value; equal bits are no change.
trait Same {
    fn same(&self, other: &Self) -> bool;
}

impl Same for String {
    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Same for i32 {
    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Same for f64 {
    fn same(&self, other: &Self) -> bool {
        // By bits: NaN is a value like any other, and does not change into itself.
        self.to_bits() == other.to_bits()
    }
}

impl Summary {
    /// Of a run whose stored row is not known yet.
    pub fn unknown(run_id: uuid::Uuid) -> Box<Self> {
        let row = RunRow { run_id, ..RunRow::default() };
        Box::new(Self { row, times: [Micros::MIN; NEWEST], dirty: 0, early: Some(Early::default()) })
    }

    /// Merges what an event says. Whether that changes the row; always `true` while the stored row is unknown.
    pub fn apply(&mut self, touch: RunTouch) -> bool {
        let RunTouch { event_time: time, lifecycle, mut values } = touch;
        let before = mem::take(&mut self.dirty);
        macro_rules! take {
            ($($column:literal $name:ident),+) => {$(
                newest(&mut self.row.$name, values.$name.take(), &mut self.times[$column], time, 1 << $column, &mut self.dirty);
            )+};
        }
        // Read before they are moved: this event's accuracy is a candidate whether or not it is the newest.
        let best = (values.final_val_accuracy, values.final_epoch);
        newest!(take);
        self.candidate(best.0, best.1);
        for tag in mem::take(&mut values.tags) {
            if self.row.tags.insert(tag) {
                self.dirty |= TAGS;
            }
        }
        match &mut self.early {
            Some(early) => {
                early.first.get_or_insert(time);
                early.lifecycle.extend(lifecycle.map(|lifecycle| (time, lifecycle)));
            }
            None => self.live(time, lifecycle),
        }
        if self.row.last_event_time.is_none_or(|last| time > last) {
            self.row.last_event_time = Some(time);
            self.dirty |= LAST;
        }
        let changed = self.dirty != 0 || self.early.is_some();
        self.dirty |= before;
        changed
    }

    /// The stored row is now known (or known to be absent): what was merged so far is merged into it. Known already: what others
    /// have written since is merged into what is to be written.
    pub fn load(&mut self, stored: Option<RunRow>) {
        let Some(early) = self.early.take() else {
            if let Some(stored) = stored {
                self.refresh(stored);
            }
            return;
        };
        let stored = stored.unwrap_or(RunRow { run_id: self.row.run_id, ..RunRow::default() });
        let as_of = stored.last_event_time.unwrap_or(Micros::MIN);
        let mut said = mem::replace(&mut self.row, stored);
        let times = mem::replace(&mut self.times, [as_of; NEWEST]);
        self.dirty = 0;
        macro_rules! take {
            ($($column:literal $name:ident),+) => {$(
                let time = times[$column];
                newest(&mut self.row.$name, said.$name.take(), &mut self.times[$column], time, 1 << $column, &mut self.dirty);
            )+};
        }
        newest!(take);
        self.candidate(said.best_val_accuracy, said.best_epoch);
        for tag in mem::take(&mut said.tags) {
            if self.row.tags.insert(tag) {
                self.dirty |= TAGS;
            }
        }
        if let Some(first) = early.first {
            self.live(first, None);
        }
        for (time, lifecycle) in early.lifecycle {
            self.live(time, Some(lifecycle));
        }
        if said.last_event_time > self.row.last_event_time {
            self.row.last_event_time = said.last_event_time;
            self.dirty |= LAST;
        }
    }

    fn refresh(&mut self, stored: RunRow) {
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
        if stored.last_event_time > row.last_event_time {
            row.last_event_time = stored.last_event_time;
            self.dirty &= !LAST;
        }
        self.measure();
    }

    /// Whether what is to be written depends on what is stored now.
    pub fn combines(&self) -> bool {
        self.dirty & COMBINED != 0
    }

    /// Whether the stored row is known.
    pub fn is_loaded(&self) -> bool {
        self.early.is_none()
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

    /// Roughly how much memory its texts take.
    pub fn text_bytes(&self) -> usize {
        let row = &self.row;
        [&row.run_name, &row.dataset_name, &row.config_json, &row.notes, &row.created_by]
            .into_iter()
            .flatten()
            .map(String::len)
            .chain(row.tags.iter().map(|tag| tag.len() + 64))
            .sum()
    }

    /// Start and status, once the stored row is known.
    fn live(&mut self, time: Micros, lifecycle: Option<Lifecycle>) {
        let row = &mut self.row;
        let starts = matches!(lifecycle, Some(Lifecycle::Start));
        if row.start_time.is_none_or(|start| starts && time < start) {
            row.start_time = Some(time);
            self.dirty |= START;
        }
        let running = row.status.as_deref().is_none_or(|stored| stored == status::RUNNING);
        let next = match lifecycle {
            // A run that runs again after an end is only ended by a later one: the old end may be replayed.
            Some(Lifecycle::End(_)) if row.end_time.is_some_and(|end| time < end || time == end && running) => None,
            Some(Lifecycle::End(how)) => {
                if row.end_time != Some(time) {
                    row.end_time = Some(time);
                    self.dirty |= END;
                }
                Some(how)
            }
            Some(Lifecycle::Start) if row.end_time.is_none_or(|end| time > end) => Some(status::RUNNING),
            _ => None,
        };
        let next = next.or(row.status.is_none().then_some(status::RUNNING));
        if let Some(next) = next
            && row.status.as_deref() != Some(next)
        {
            row.status = Some(next.to_owned());
            self.dirty |= STATUS;
        }
        self.measure();
    }

    /// From start to end.
    fn measure(&mut self) {
        let row = &mut self.row;
        if let (Some(start), Some(end)) = (row.start_time, row.end_time) {
            let seconds = i32::try_from(end.saturating_sub(start).max(0) / 1_000_000).unwrap_or(i32::MAX);
            if row.duration_seconds != Some(seconds) {
                row.duration_seconds = Some(seconds);
                self.dirty |= DURATION;
            }
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
}

/// The newest value by time wins, the later of two equally new ones; an absent column takes any.
fn newest<T: Same>(
    column: &mut Option<T>,
    value: Option<T>,
    said: &mut Micros,
    time: Micros,
    bit: Columns,
    dirty: &mut Columns,
) {
    let Some(value) = value else { return };
    if column.is_some() && time < *said {
        return;
    }
    *said = time;
    if !column.as_ref().is_some_and(|old| old.same(&value)) {
        *column = Some(value);
        *dirty |= bit;
    }
}

/// The row with these columns only.
pub fn only(row: &RunRow, columns: Columns) -> RunRow {
    fn keep<T: Clone>(value: &Option<T>, columns: Columns, bit: Columns) -> Option<T> {
        if columns & bit == 0 { None } else { value.clone() }
    }
    let mut change = RunRow {
        run_id: row.run_id,
        start_time: keep(&row.start_time, columns, START),
        end_time: keep(&row.end_time, columns, END),
        duration_seconds: keep(&row.duration_seconds, columns, DURATION),
        status: keep(&row.status, columns, STATUS),
        best_val_accuracy: keep(&row.best_val_accuracy, columns, BEST),
        best_epoch: keep(&row.best_epoch, columns, BEST_EPOCH),
        last_event_time: keep(&row.last_event_time, columns, LAST),
        ..RunRow::default()
    };
    if columns & TAGS != 0 {
        change.tags.clone_from(&row.tags);
    }
    macro_rules! take {
        ($($column:literal $name:ident),+) => {$( change.$name = keep(&row.$name, columns, 1 << $column); )+};
    }
    newest!(take);
    change
}
